"""How good the answers are, with what a count of them can say and no more."""

from __future__ import annotations

from math import sqrt


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share `right` of `n` (Wilson 1927): honest near 0 and 1, where n is small."""
    p = right / n
    middle, spread = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))
