"""Which guesses are accepted: those that the model itself would have made, or by chance, so that the model's own
distribution is kept (notebook 07).

Sampled guesses: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2023; Chen et al.,
"Accelerating Large Language Model Decoding with Speculative Sampling", 2023. Typical acceptance, which keeps what is
likely instead: Cai et al., "Medusa", 2024, section 2.3.1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from helpers.decoding.proposals import Proposal
from helpers.decoding.sampling import Sampler, draw, probabilities

Accepted = tuple[list[int], int]  # indices of the accepted guesses, and the bonus token: the model's own after them


def accept(proposal: Proposal, logits: torch.Tensor, sampler: Sampler) -> Accepted:
    """Of guesses drawn by chance what chance keeps, of others the longest path that the model agrees with.

    Args:
        logits: (1 + guesses, vocabulary), after the certain token and after each guess.
    """
    if sampler.sampling.temperature == 0:
        return longest_path(proposal, lambda row: int(logits[row].argmax()))  # of few rows: most guesses are wrong
    if sampler.sampling.typical:
        return typical_path(proposal, probabilities(logits, sampler.sampling), sampler)
    if proposal.probs is None:
        return longest_path(proposal, lambda row: sampler(logits[row]))
    return sampled_path(proposal, probabilities(logits, sampler.sampling), sampler.generator)


def longest_path(proposal: Proposal, own_token: Callable[[int], int]) -> Accepted:
    """Walk the tree along the model's own tokens: `own_token(row)`, row 0 being the certain token's and row i + 1 that
    of guess i."""
    children: dict[tuple[int, int], int] = {}
    for i, (token, parent) in enumerate(zip(proposal.tokens, proposal.parents, strict=True)):
        children.setdefault((parent, token), i)
    accepted, here = [], -1
    while (here, token := own_token(here + 1)) in children:
        here = children[here, token]
        accepted.append(here)
    return accepted, token


def residual(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """What is left of the target's distribution p where the draft's q fell short of it, made a distribution again."""
    left = (p - q).clamp(min=0)
    return left / left.sum()


def sampled_path(
    proposal: Proposal,
    target: torch.Tensor,
    generator: torch.Generator,
    left: Callable = residual,
) -> Accepted:
    """Accept a chain of guesses as far as chance has it; draw a token of the target's.

    `proposal.probs` (guesses, vocabulary) are what its tokens were drawn from, `target`
    (guesses + 1, vocabulary) is the target's, before each guess and after the last.
    After a rejection, the token is drawn from `left(p, q)`.
    """
    for i, token in enumerate(proposal.tokens):
        p, q = target[i], proposal.probs[i]
        chance = torch.rand((), generator=generator)
        if chance * q[token] >= p[token]:  # accepted with probability p / q
            return list(range(i)), draw(left(p, q), generator)
    n = len(proposal.tokens)
    return list(range(n)), draw(target[n], generator)


def typical_path(proposal: Proposal, probs: torch.Tensor, sampler: Sampler) -> Accepted:
    """Accept the longest path of guesses that are likely enough, and draw the next token.

    Likely enough is a probability above min(e, sqrt(e) exp(-entropy)), with e = `sampling.typical`: where the model is
    unsure of everything, less is asked of a guess. `probs` (guesses + 1, vocabulary) are what is sampled from.
    """
    epsilon = sampler.sampling.typical
    entropy = -torch.special.xlogy(probs, probs).sum(-1)
    threshold = (epsilon**0.5 * torch.exp(-entropy)).clamp(max=epsilon)
    reached: dict[int, list[int]] = {-1: []}
    for i, (token, parent) in enumerate(zip(proposal.tokens, proposal.parents, strict=True)):
        if parent in reached and probs[parent + 1, token] > threshold[parent + 1]:
            reached[i] = [*reached[parent], i]
    accepted = max(reached.values(), key=len)
    return accepted, draw(probs[accepted[-1] + 1 if accepted else 0], sampler.generator)
