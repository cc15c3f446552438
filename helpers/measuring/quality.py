"""How good the answers are, with what a count of them can say and no more; and how far two models' logits lie apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb, exp, sqrt

import torch

from helpers.errors import CourseError


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share `right` of `n` (Wilson 1927): honest near 0 and 1, where n is small."""
    if n < 1:
        raise CourseError("A share of no answers says nothing: give at least one.")
    p = right / n
    middle, spread = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))


Logits = Callable[[Sequence[int]], torch.Tensor]


def logits_of(model) -> Logits:
    """The function from token ids to a Hugging Face model's logits, (tokens, vocabulary), in float32."""

    @torch.inference_mode()
    def logits(tokens: Sequence[int]) -> torch.Tensor:
        return model(torch.tensor([list(tokens)], device=model.device)).logits[0].float()

    return logits


def perplexity(logits: Logits, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> float:
    """How many tokens the model hesitates between, on average, at each token of the answers: exp of their mean loss.

    `pairs` are (prompt's token ids, answer's token ids); the prompt's own tokens don't count.
    """
    if not pairs:
        raise CourseError("Perplexity needs a prompt and an answer: give at least one pair.")
    total, count = 0.0, 0
    for prompt, answer in pairs:
        if not prompt or not answer:
            raise CourseError("Perplexity needs a prompt and an answer of one token at least.")
        log_probs = logits([*prompt, *answer])[len(prompt) - 1 : -1].log_softmax(-1)  # each is about the next token
        total -= log_probs[range(len(answer)), list(answer)].double().sum().item()
        count += len(answer)
    return exp(total / count)


def worst_logit_error(logits: Logits, reference: Logits, sequences: Sequence[Sequence[int]]) -> float:
    """The largest difference between two models' logits, at any position of the same token sequences (teacher-forced:
    neither model's own mistakes lead it astray); NaN where there is one."""
    if not sequences:
        raise CourseError("The error of no sequences says nothing: give at least one.")
    worst = [(logits(s) - reference(s)).abs().max() for s in sequences]
    return torch.stack(worst).max().item()  # Python's own max loses a NaN


@dataclass(frozen=True)
class Paired:
    """Of `n` answers, how many were wrong before and are right after (fixed), and the other way round (broken)."""

    fixed: int
    broken: int
    n: int

    @property
    def chance(self) -> float:
        """How likely a split of fixed and broken at least as uneven is, were both equally likely: the exact sign test
        (Arbuthnot 1710), both sides."""
        moved, fewer = self.fixed + self.broken, min(self.fixed, self.broken)
        return min(1.0, 2 * sum(comb(moved, k) for k in range(fewer + 1)) / 2**moved)

    @property
    def real(self) -> bool:
        """Whether chance explains the difference in fewer than one of 20 such comparisons."""
        return self.chance < 0.05

    def __str__(self) -> str:
        return f"{self.fixed} fixed, {self.broken} broken, of {self.n}"


def paired(before: Sequence[bool], after: Sequence[bool]) -> Paired:
    """Compare answers to the same questions, question by question: two equal accuracies can hide many changes."""
    if len(before) != len(after):
        raise CourseError(f"Paired means the same questions on both sides, not {len(before)} and {len(after)}.")
    both = list(zip(before, after))
    return Paired(sum(b < a for b, a in both), sum(b > a for b, a in both), len(both))
