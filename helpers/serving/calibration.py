"""Whether an answer's confidence says how likely it is right (notebook 11).

Guo et al., "On Calibration of Modern Neural Networks", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from helpers.errors import CourseError


class Bin(NamedTuple):
    """Answers of similar confidence: its mean, the share of them that is right, and how many they are."""

    confidence: float
    right: float
    count: int


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int) -> list[Bin]:
    """The answers, the least confident first, in `bins` groups of as equal counts as can be; with fewer answers each
    is a group of its own. (Groups of equal width would put nearly all answers of a sure model into the last one;
    Nguyen and O'Connor, "Posterior calibration", 2015.)"""
    pairs = sorted(zip(confidences, right, strict=True), key=itemgetter(0))
    groups = min(bins, len(pairs))
    borders = [len(pairs) * place // groups for place in range(groups + 1)] if groups else [0]
    cut = (pairs[begin:end] for begin, end in pairwise(borders))
    return [Bin(sum(c for c, _ in one) / len(one), sum(r for _, r in one) / len(one), len(one)) for one in cut]


def calibration_error(found: Sequence[Bin]) -> float:
    """The mean distance of confidence and share, weighted by the answers (ECE)."""
    total = sum(one.count for one in found)
    if not total:
        raise CourseError("There is no answer: a calibration needs some.")
    return sum(one.count * abs(one.confidence - one.right) for one in found) / total
