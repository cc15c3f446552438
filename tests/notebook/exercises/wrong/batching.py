"""Wrong answers to the exercises of notebook 05."""

from helpers.engine.steps_needed import static_steps


def waits_for_the_batch(lengths, batch_size):
    return static_steps(lengths, batch_size)


def in_turns(lengths, batch_size):
    return max(sum(lengths[place::batch_size]) for place in range(batch_size))


def the_work_evenly_shared(lengths, batch_size):
    return -(-sum(lengths) // batch_size)


def without_the_table(places, blocks, block_size):
    return [(place // block_size, place % block_size) for place in places]


def swapped(places, blocks, block_size):
    return [(place % block_size, blocks[place // block_size]) for place in places]


def from_one_on(places, blocks, block_size):
    return [(blocks[place // block_size], place % block_size + 1) for place in places]


def first_come(unread, budget):
    shares = []
    for n in unread:
        shares.append(min(n, budget - sum(shares)))
    return shares


def shortest_alone(unread, budget):
    shares, left = [0] * len(unread), budget
    for prompt in sorted(range(len(unread)), key=unread.__getitem__):
        shares[prompt] = min(unread[prompt], left)
        left -= shares[prompt]
    return shares


def half_rounded_down(unread, budget):
    shares, left = [0] * len(unread), budget
    shortest = sorted(range(len(unread)), key=unread.__getitem__)
    for prompt, most in [(0, budget // 2), *((p, budget) for p in shortest)] if unread else []:
        more = min(unread[prompt] - shares[prompt], most, left)
        shares[prompt] += more
        left -= more
    return shares


def in_order_of_length(unread, budget):
    from helpers.engine.scheduler import divide

    return sorted(divide(unread, budget))


WRONG = {
    "05.1": [
        (waits_for_the_batch, "(the example), it is 13, it should be 9"),
        (in_turns, "(the example), it is 13, it should be 9 (yours is 1.44 times that)"),
        (the_work_evenly_shared, "(the example), it is 8, it should be 9"),
    ],
    "05.2": [
        (without_the_table, "(the example), at [0][0], it is 0, it should be 7"),
        (swapped, "(the example), at [0][0], it is 0, it should be 7."),
        (from_one_on, "(the example), at [0][1], it is 1, it should be 0"),
    ],
    "05.3": [
        (first_come, "(a long one and two short ones), at [0], it is 256, it should be 128"),
        (shortest_alone, "(a long one and two short ones), at [0], it is 126, it should be 128"),
        (half_rounded_down, "(an odd budget), at [0]"),
        (in_order_of_length, "(a long one and two short ones), at [0], it is 40"),
    ],
}
