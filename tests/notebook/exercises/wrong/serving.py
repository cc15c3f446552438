"""Wrong answers to the exercises of notebook 11."""

import math

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


def with_empty_groups(confidences, right, bins):
    found = {int(one.confidence * bins): one for one in reliability(confidences, right, bins)}
    return [found.get(k, Bin(0.0, 0.0, 0)) for k in range(bins)]


def one_is_a_group_of_its_own(confidences, right, bins):
    sure = [(c, r) for c, r in zip(confidences, right, strict=True) if c == 1]
    rest = [(c, r) for c, r in zip(confidences, right, strict=True) if c < 1]
    found = reliability(*zip(*rest, strict=True), bins) if rest else []
    return found + ([Bin(1.0, sum(r for _, r in sure) / len(sure), len(sure))] if sure else [])


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
        (with_empty_groups, "(ten groups), its length is 10, it should be 3"),
        (one_is_a_group_of_its_own, "(ten groups), its length is 4, it should be 3"),
        (counts_the_right_ones, "(ten groups), at [1]"),
    ],
}
