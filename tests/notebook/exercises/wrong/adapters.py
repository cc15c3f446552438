"""Wrong answers to the exercises of notebook 03b."""


def attended(q, k, v, scale=None, dim=-1):
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return scores.softmax(dim) @ v


def neighbours(q, k):
    return k.repeat_interleave(q.shape[1] // k.shape[1], 1)


def without_the_root(q, k, v, gates):
    return attended(q, neighbours(q, k), neighbours(q, v), scale=1.0) * gates[:, None, None]


def without_gates(q, k, v, gates):
    return attended(q, neighbours(q, k), neighbours(q, v))


def every_third_head_shares(q, k, v, gates):
    times = q.shape[1] // k.shape[1]
    return attended(q, k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1)) * gates[:, None, None]


def keys_are_not_shared(q, k, v, gates):
    return attended(q, k, v) * gates[:, None, None]


def one_gate_for_all(q, k, v, gates):
    return attended(q, neighbours(q, k), neighbours(q, v)) * gates[0]


def tokens_and_heads_exchanged(q, k, v, gates):
    return (attended(q, neighbours(q, k), neighbours(q, v)) * gates[:, None, None]).transpose(1, 2)


def softmax_over_the_queries(q, k, v, gates):
    return attended(q, neighbours(q, k), neighbours(q, v), dim=-2) * gates[:, None, None]


WRONG = {
    "03b.1": [
        (without_the_root, "(each head has keys of its own, the gates open), at [0, 0, 0, 0], it is"),
        (without_gates, "(gates half open), at [0, 0, 0, 0]"),
        (every_third_head_shares, "(two neighbouring heads share keys), at [0, 1, 0, 0]"),
        (keys_are_not_shared, "(two neighbouring heads share keys), it raised RuntimeError"),
        (one_gate_for_all, "(gates half open), at [0, 1, 0, 0]"),
        (tokens_and_heads_exchanged, "its shape is (2, 3, 2, 4), it should be (2, 2, 3, 4)"),
        (softmax_over_the_queries, "(each head has keys of its own, the gates open), at [0"),
    ],
}
