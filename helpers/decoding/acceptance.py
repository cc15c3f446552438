"""Which guesses are kept: those that the model itself would have made, or by chance, so that the model's own
distribution is kept (notebook 07).

Sampled guesses: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2023; Chen et al.,
"Accelerating Large Language Model Decoding with Speculative Sampling", 2023. Typical acceptance, which keeps what is
likely instead: Cai et al., "Medusa", 2024, section 2.3.1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from helpers.decoding.proposals import Proposal
from helpers.decoding.sampling import Chooser, draw, probabilities

Path = tuple[list[int], list[int], list[int]]


def kept_path(proposal: Proposal, logits: torch.Tensor, choose: Chooser) -> Path:
    """Of guesses drawn by chance what chance keeps, of others the longest path that the model agrees with.

    Returns:
        (indices of the accepted guesses, the tokens they and the model's last word are, rows of logits they came from)
    """
    if choose.sampling.temperature == 0:
        return longest_path(proposal, logits.argmax(-1).tolist().__getitem__)
    if choose.sampling.typical:
        return typical_path(proposal, probabilities(logits, choose.sampling), choose)
    if proposal.probs is None:
        return longest_path(proposal, lambda row: choose(logits[row]))
    return sampled_path(proposal, probabilities(logits, choose.sampling), choose.generator)


def longest_path(proposal: Proposal, said: Callable[[int], int]) -> Path:
    """Walk the tree along what the model itself says: `said(row)`, row 0 being the certain token's and row i + 1 that
    of guess i; returns as `kept_path`."""
    children: dict[tuple[int, int], int] = {}
    for i, (token, parent) in enumerate(zip(proposal.tokens, proposal.parents, strict=True)):
        children.setdefault((parent, token), i)
    path, tokens, rows, here = [], [], [0], -1
    while True:
        token = said(rows[-1])
        tokens.append(token)
        if (here, token) not in children:
            return path, tokens, rows
        here = children[here, token]
        path.append(here)
        rows.append(here + 1)


def residual(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """What is left of the target's distribution p where the draft's q fell short of it, made a distribution again."""
    left = (p - q).clamp(min=0)
    return left / left.sum()


def sampled_path(
    proposal: Proposal, target: torch.Tensor, generator: torch.Generator, left: Callable = residual
) -> Path:
    """Keep a chain of guesses as far as chance has it, and add a token of the target's own.

    Args:
        proposal: a chain, with the distributions `probs` (guesses, vocabulary) that its tokens were drawn from.
        target: the target's distributions (guesses + 1, vocabulary): before each guess, and after the last.
        left: what to draw from after a rejection.

    Returns:
        (indices of the accepted guesses, the tokens they and the target's last word are, rows of `target` they follow)
    """
    for i, token in enumerate(proposal.tokens):
        p, q = target[i], proposal.probs[i]
        if torch.rand((), generator=generator) * q[token] >= p[token]:  # accepted with probability p / q
            rejected = draw(left(p, q), generator)
            return list(range(i)), [*proposal.tokens[:i], rejected], list(range(i + 1))
    n = len(proposal.tokens)
    return list(range(n)), [*proposal.tokens, draw(target[n], generator)], list(range(n + 1))


def typical_path(proposal: Proposal, probs: torch.Tensor, choose: Chooser) -> Path:
    """Keep the longest path of guesses that are likely enough, and draw the next token; returns as `kept_path`.

    Likely enough is a probability above min(e, sqrt(e) exp(-entropy)), with e = `sampling.typical`: where the model is
    unsure of everything, less is asked of a guess. `probs` (guesses + 1, vocabulary) are what is sampled from.
    """
    most = choose.sampling.typical
    entropy = -torch.special.xlogy(probs, probs).sum(-1)
    least = (most**0.5 * torch.exp(-entropy)).clamp(max=most)
    reached: dict[int, list[int]] = {-1: []}
    for i, (token, parent) in enumerate(zip(proposal.tokens, proposal.parents, strict=True)):
        if parent in reached and probs[parent + 1, token] > least[parent + 1]:
            reached[i] = [*reached[parent], i]
    path = max(reached.values(), key=len)
    rows = [0, *(i + 1 for i in path)]
    return path, [*(proposal.tokens[i] for i in path), draw(probs[rows[-1]], choose.generator)], rows
