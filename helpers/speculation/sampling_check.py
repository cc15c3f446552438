"""Does speculative sampling draw what the target alone would draw? Counted over all pairs of a small vocabulary.

The target and the draft are tables of random distributions, rather unlike each other, so that every rule is used often:
guesses accepted, guesses rejected, and the target's own token after a chain. A wrong rule shows in the counts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from helpers.decoding.acceptance import residual, sampled_path
from helpers.decoding.proposals import chain
from helpers.decoding.sampling import draw

VOCABULARY = 4


def tables(seed: int) -> list[torch.Tensor]:
    """Target p(x) and p(y | x), draft q(x) and q(y | x)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((VOCABULARY,), (VOCABULARY,) * 2) * 2
    return [(2 * torch.randn(shape, generator=generator)).softmax(-1) for shape in shapes]


@torch.inference_mode()
def pair_counts(draws: int, seed: int = 0, left: Callable = residual) -> np.ndarray:
    """How often each pair of first two tokens came, (vocabulary, vocabulary), the draft guessing one or two."""
    p1, p2, q1, q2 = tables(seed)
    generator, counts = torch.Generator().manual_seed(seed), np.zeros((VOCABULARY, VOCABULARY))
    for turn, x in enumerate(torch.multinomial(q1, draws, replacement=True, generator=generator).tolist()):
        y = draw(q2[x], generator)
        length = 1 + turn % 2  # after a chain of one guess the second token is the target's own
        chain_of = chain([x, y][:length], "draft", torch.stack([q1, q2[x]])[:length])
        accepted, bonus = sampled_path(chain_of, torch.stack([p1, p2[x], p2[y]])[: length + 1], generator, left)
        tokens = [*([x, y][i] for i in accepted), bonus]
        if not accepted:  # the first guess was rejected: the next step would begin after the bonus token
            tokens.append(draw(p2[bonus], generator))
        counts[tokens[0], tokens[1]] += 1
    return counts


def goodness_of_fit(counts: np.ndarray, seed: int = 0) -> float:
    """The p-value of the chi-square test (Pearson 1900) of counts against the target's own distribution."""
    from scipy.stats import chisquare

    p1, p2, _, _ = tables(seed)
    expected = (p1[:, None] * p2).double().numpy()
    return float(chisquare(counts.flatten(), (expected / expected.sum() * counts.sum()).flatten()).pvalue)


def unnormalised(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """The mistake that the check has to catch: what is left of p, not made a distribution again; what is missing falls
    to the last token."""
    left = (p - q).clamp(min=0)
    left[-1] += 1 - left.sum()
    return left
