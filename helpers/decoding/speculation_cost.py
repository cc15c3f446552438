"""When does speculation pay? Acceptance against what a step for several rows costs more (notebook 07).

Leviathan et al. 2023, section 3: with a chance `acceptance` for each guess, the same for all, a chain of k guesses
emits (1 - acceptance^(k + 1)) / (1 - acceptance) tokens a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from helpers.errors import CourseError


def expected_tokens(acceptance: float, k: int) -> float:
    """Tokens that a step emits on average: the accepted guesses of a chain of k, and one of the target's own."""
    if not 0 <= acceptance <= 1 or k < 0:
        raise CourseError("An acceptance lies between 0 and 1, and a chain has 0 guesses or more.")
    return sum(acceptance**i for i in range(k + 1))


def predicted_speedup(acceptance: float, k: int, step_seconds: Callable[[int], float], draft_seconds: float) -> float:
    """How many times as fast as plain decoding: `step_seconds(rows)` of the target, `draft_seconds` for each guess."""
    per_step = step_seconds(k + 1) + k * draft_seconds
    return expected_tokens(acceptance, k) * step_seconds(1) / per_step


def best_k(acceptance: float, step_seconds: Callable[[int], float], draft_seconds: float,
           choices: Iterable[int] = range(17)) -> int:  # fmt: skip
    """How many guesses are best; 0 where speculation does not pay."""
    return max(choices, key=lambda k: (predicted_speedup(acceptance, k, step_seconds, draft_seconds), -k))


def break_even_acceptance(k: int, step_seconds: Callable[[int], float], draft_seconds: float) -> float:
    """The acceptance from which k guesses a step are no loss; above 1 where they always are."""
    needed = (step_seconds(k + 1) + k * draft_seconds) / step_seconds(1)
    if needed > k + 1:
        return float("inf")
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_tokens(middle, k) < needed else (low, middle)
    return high
