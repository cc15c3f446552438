"""Wrong answers to the exercises of notebook 11."""

import math
from itertools import pairwise

from helpers.serving.calibration import Bin, reliability


def forgets_the_rest(rest, piece):
    *whole, rest = piece.split(b"\n")
    return [line.strip() for line in whole if line.strip()], rest


def keeps_blank_lines(rest, piece):
    *whole, rest = (rest + piece).split(b"\n")
    return [line.strip() for line in whole], rest


def all_are_whole(rest, piece):
    return [line.strip() for line in (rest + piece).split(b"\n") if line.strip()], b""


def the_product(log_probs):
    return math.exp(sum(log_probs))


def mean_of_probabilities(log_probs):
    return sum(map(math.exp, log_probs)) / len(log_probs)


def no_exp(log_probs):
    return sum(log_probs) / len(log_probs)


def in_the_order_in_which_they_come(confidences, right, bins):
    groups = min(bins, len(right))
    borders = [len(right) * k // groups for k in range(groups + 1)] if groups else [0]
    cut = [(confidences[a:b], right[a:b]) for a, b in pairwise(borders)]
    return [Bin(sum(c) / len(c), sum(r) / len(r), len(c)) for c, r in cut]


def of_equal_width(confidences, right, bins):
    groups = {}
    for c, r in zip(confidences, right, strict=True):
        groups.setdefault(min(int(c * bins), bins - 1), []).append((c, r))
    return [
        Bin(sum(c for c, _ in one) / len(one), sum(r for _, r in one) / len(one), len(one))
        for _, one in sorted(groups.items())
    ]


def counts_the_right_ones(confidences, right, bins):
    return [Bin(one.confidence, one.right * one.count, one.count) for one in reliability(confidences, right, bins)]


WRONG = {
    "11.1": [
        (forgets_the_rest, "(its second half)"),
        (keeps_blank_lines, "(the example), at [0], its length is 2, it should be 1"),
        (all_are_whole, "(the example), at [0], its length is 2"),
    ],
    "11.2": [
        (the_product, "(two tokens), it is 0.67032, it should be 0.818731"),
        (mean_of_probabilities, "(two tokens), it is 0.822828"),
        (no_exp, "(two tokens), it is -0.2, it should be"),
    ],
    "11.3": [
        (in_the_order_in_which_they_come, "(two groups), at [0][0], it is 0.5,"),
        (of_equal_width, "(two groups), at [0][0], it is 0.05,"),
        (counts_the_right_ones, "(two groups), at [0][1]"),
    ],
}
