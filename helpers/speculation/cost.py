"""When does speculation pay? Acceptance against what a step that reads several tokens costs more (notebook 07).

Leviathan et al. 2023, section 3: with a chance `acceptance` for each guess, the same for all, a chain of k guesses
emits (1 - acceptance^(k + 1)) / (1 - acceptance) tokens a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from helpers.errors import CourseError


def expected_tokens(acceptance: float, k: int) -> float:
    """Tokens that a step emits on average: the accepted guesses of a chain of k, and one of the target's own."""
    if not 0 <= acceptance <= 1 or k < 0:
        raise CourseError("An acceptance lies between 0 and 1, and a chain has 0 guesses or more.")
    return sum(acceptance**i for i in range(k + 1))


def predicted_speedup(acceptance: float, k: int, step_seconds: Callable[[int], float], draft_seconds: float) -> float:
    """How many times as fast as plain decoding: `step_seconds(num_tokens)` of the target, `draft_seconds` a guess."""
    per_step = step_seconds(k + 1) + k * draft_seconds
    return expected_tokens(acceptance, k) * step_seconds(1) / per_step


def best_k(
    acceptance: float, step_seconds: Callable[[int], float], draft_seconds: float, choices: Iterable[int] = range(17)
) -> int:
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


def acceptance_of(completions: Iterable) -> float:
    """The chance that a guess of a chain is accepted if all before it were: accepted ones over those tried."""
    accepted = tried = 0
    for step in (step for c in completions for step in c.steps if step.proposal.tokens):
        accepted += len(step.accepted)
        tried += min(len(step.emitted), len(step.proposal.tokens))  # past the answer's end nothing was tried
    return accepted / tried if tried else 0.0


def accepted_per_step(completions: Sequence) -> float:
    """Tokens that the decode steps of all answers emitted, for each run of the model."""
    decode = [step for c in completions for step in c.steps if step.kind == "decode"]
    return sum(len(step.emitted) for step in decode) / max(1, len(decode))


def interpolated(times: Mapping[int, float]) -> Callable[[int], float]:
    """Seconds for any number of tokens, from those measured: straight lines between them."""
    measured = sorted(times)
    return lambda num_tokens: float(np.interp(num_tokens, measured, [times[n] for n in measured]))


def replayed_seconds(
    completions: Iterable,
    step_seconds: Callable[[int], float],
    prefill_seconds: float = 0.0,
    guess_seconds: float = 0.0,
) -> float:
    """What recorded answers take by the cost model: a prefill each, every decode step at
    the price of the tokens that it reads, and `guess_seconds` of guessing in all."""
    total = guess_seconds
    for completion in completions:
        decode = [step for step in completion.steps if step.kind == "decode"]
        total += prefill_seconds + sum(step_seconds(step.num_tokens) for step in decode)
    return total
