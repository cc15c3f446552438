"""Wrong answers to the exercises of notebook 00."""

from math import ceil
from statistics import mean


def decode_steps(steps):
    return [step for step in steps if step.kind == "decode"]


def seconds(steps):
    return sum(step.seconds for step in steps)


def tokens(steps):
    return sum(len(step.emitted) for step in steps)


def prefill_included(steps):
    return tokens(steps) / seconds(steps)


def first_token_included(steps):
    return tokens(steps) / max(seconds(decode_steps(steps)), 1e-9)


def steps_counted(steps):
    decode = decode_steps(steps)
    return len(decode) / seconds(decode) if decode else 0


def mean_of_rates(steps):
    return mean([len(step.emitted) / step.seconds for step in decode_steps(steps)] or [0])


def seconds_per_token(steps):
    return seconds(decode_steps(steps)) / max(tokens(decode_steps(steps)), 1)


def only_the_first_step_left_out(steps):
    return tokens(steps[1:]) / seconds(steps[1:]) if steps[1:] else 0


def division_by_nothing(steps):
    return tokens(decode_steps(steps)) / seconds(decode_steps(steps))


def ids_added_up(steps):
    return sum(sum(step.emitted) for step in decode_steps(steps)) / seconds(decode_steps(steps))


def each_token_once(steps):
    decode = decode_steps(steps)
    return len({token for step in decode for token in step.emitted}) / seconds(decode) if decode else 0


def tuples_added_up(steps):
    return sum(step.emitted for step in decode_steps(steps)) / seconds(decode_steps(steps))


def dicts_expected(steps):
    return sum(step["seconds"] for step in steps)


WRONG = {
    "00.1": [
        (prefill_included, "(a token a step), it is 57.1429, it should be 150 (yours is 0.381 times that)"),
        (first_token_included, "it is 200, it should be 150 (yours is 1.33 times that)"),
        (steps_counted, "(several tokens a step), it is 75, it should be 200"),
        (mean_of_rates, "it is 172.222, it should be 150"),
        (seconds_per_token, "it is 0.00666667, it should be 150"),
        (only_the_first_step_left_out, "(a prompt read in two steps), it is 133.333, it should be 300"),
        (division_by_nothing, "(no decode step), it raised ZeroDivisionError"),
        (each_token_once, "(several tokens a step), it is 175, it should be 200"),
        (ids_added_up, "it is 46050, it should be 150 (yours is 307 times that)"),
        (tuples_added_up, "TypeError: unsupported operand type(s) for +: 'int' and 'tuple', at line"),
        (dicts_expected, "TypeError: 'Step' object is not subscriptable, at line"),
    ],
    "00.2": [
        (lambda size, bandwidth: size / bandwidth, "yours is 0.001 times that"),
        (lambda size, bandwidth: size / bandwidth * 1e6, "yours is 1e+03 times that"),
        (lambda size, bandwidth: size / bandwidth / 1e3, "yours is 1e-06 times that"),
        (lambda size, bandwidth: bandwidth / size * 1e3, "it is 500000, it should be 2"),
        (lambda size, bandwidth: 4 * size / bandwidth * 1e3, "yours is 4 times that"),
        (lambda size, bandwidth: size / bandwidth * 1e3 / 8, "yours is 0.125 times that"),
        (lambda size, bandwidth: size // bandwidth * 1e3, "it is 0, it should be 2"),
        (lambda size, bandwidth: round(size / bandwidth * 1e3), "in case 2 (weight_bytes=1.4e+10, bandwidth=3.35e+12)"),
        (lambda size, bandwidth: f"{size / bandwidth * 1e3:.1f} ms", "it is a string ('2.0 ms')"),
        (lambda size: size / 20e9 * 1e3, "it takes (size), it should take (weight_bytes, bandwidth)"),
    ],
    "00.3": [
        (lambda size, bandwidth, rate: rate / bandwidth * size, "yours is 2 times that"),
        (lambda size, bandwidth, rate: rate / bandwidth / 2, "yours is 0.25 times that"),
        (lambda size, bandwidth, rate: rate / bandwidth, "it is 5, it should be 10"),
        (lambda size, bandwidth, rate: bandwidth / rate * size / 2, "it is 0.4, it should be 10"),
        (lambda size, bandwidth, rate: rate / bandwidth / size * 2, "it is 2.5, it should be 10"),
        (lambda size, bandwidth, rate: size / bandwidth / rate * 2, "it is 4e-21, it should be 10"),
        (lambda size, bandwidth, rate: ceil(rate / bandwidth * size / 2), "it is 296, it should be 295.522"),
        (lambda size, bandwidth, rate: rate / bandwidth * max(size, 1) / 2, "it is 13, it should be 6.5"),
    ],
}
