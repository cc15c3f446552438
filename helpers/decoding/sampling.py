"""From logits to the next token: greedy, or by temperature, top-k and top-p (nucleus; Holtzman et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from helpers.errors import CourseError


@dataclass(frozen=True)
class Sampling:
    """How to choose: temperature 0 is greedy; top_k 0 and top_p 1 leave all tokens in the running.

    `typical` above 0 keeps guesses that the model finds likely enough, up to that probability (typical acceptance,
    acceptance.py): more of them than chance would keep, and another distribution. 0 keeps the model's own.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    typical: float = 0.0

    def __post_init__(self):
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise CourseError("Sampling needs temperature >= 0, top_k >= 0 and top_p above 0 and at most 1.")
        if not 0 <= self.typical <= 1:
            raise CourseError("typical is a probability from 0 to 1; Medusa's reference code takes 0.09.")


GREEDY = Sampling()


def probabilities(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution that is sampled from: (..., vocabulary), float32; greedy is all on the best token."""
    if sampling.temperature == 0:
        return torch.zeros_like(logits, dtype=torch.float32).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = logits.float() / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        kth_best = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth_best, -torch.inf)
    probs = logits.softmax(-1)
    if sampling.top_p < 1:
        ranked, order = probs.sort(dim=-1, descending=True)
        before = ranked.cumsum(-1) - ranked  # the mass of all better tokens
        probs = probs.masked_fill(
            torch.zeros_like(probs, dtype=torch.bool).scatter(-1, order, before >= sampling.top_p), 0
        )
        probs = probs / probs.sum(-1, keepdim=True)
    return probs


def draw(probs: torch.Tensor, generator: torch.Generator) -> int:
    """One token from a distribution (vocabulary,)."""
    return int(torch.multinomial(probs.cpu(), 1, generator=generator))


class Sampler:
    """Draws next tokens by one `Sampling`, from a generator of its own."""

    def __init__(self, sampling: Sampling):
        self.sampling = sampling
        self.generator = torch.Generator().manual_seed(sampling.seed)

    def __call__(self, logits: torch.Tensor) -> int:
        """One token from logits of shape (vocabulary,)."""
        if self.sampling.temperature == 0:
            return int(logits.argmax())
        return draw(probabilities(logits, self.sampling), self.generator)
