"""Whether an answer's confidence says how likely it is right (notebook 11).

Guo et al., "On Calibration of Modern Neural Networks", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from helpers.errors import CourseError


class Bin(NamedTuple):
    """Answers of similar confidence: its mean, the share of them that is right, and how many they are."""

    confidence: float
    right: float
    count: int


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int) -> list[Bin]:
    """The answers in `bins` groups of equal width from 0 to 1, the least confident first;
    empty groups are left out. A confidence of 1 is in the last one."""
    groups: dict[int, list[tuple[float, bool]]] = {}
    for pair in zip(confidences, right, strict=True):
        groups.setdefault(min(int(pair[0] * bins), bins - 1), []).append(pair)
    return [
        Bin(sum(c for c, _ in one) / len(one), sum(r for _, r in one) / len(one), len(one))
        for _, one in sorted(groups.items())
    ]


def calibration_error(found: Sequence[Bin]) -> float:
    """The mean distance of confidence and share, weighted by the answers (ECE)."""
    total = sum(one.count for one in found)
    if not total:
        raise CourseError("There is no answer: a calibration needs some.")
    return sum(one.count * abs(one.confidence - one.right) for one in found) / total
