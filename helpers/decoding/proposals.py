"""Guesses of what comes next: how they are written down (notebooks 07 and 08)."""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass, field

import torch

from helpers.errors import CourseError

MAX_GUESSES = 128  # for one sequence in one step: the room that a cache keeps for them


@dataclass(frozen=True)
class Proposal:
    """Guessed tokens as a tree: token i follows token parents[i], -1 being the last token that is certain."""

    tokens: abc.Sequence[int] = ()
    parents: abc.Sequence[int] = ()
    proposers: abc.Sequence[str] = ()  # who guessed each: "draft", "lookup", "head 1"
    # (guesses, vocabulary): the distributions that a chain's tokens were drawn from, if by chance
    probs: torch.Tensor | None = field(default=None, compare=False)

    def __post_init__(self):
        if len(self.tokens) > MAX_GUESSES:
            raise CourseError(f"A proposer guessed {len(self.tokens)} tokens; {MAX_GUESSES} are the most.")
        if len(self.parents) != len(self.tokens) or not is_tree(self.parents):
            raise CourseError("A proposal needs a parent for each token: an earlier token's index, or -1.")


def is_tree(parents: abc.Sequence[int]) -> bool:
    """Whether each guess follows an earlier one, or the certain token (-1)."""
    return all(-1 <= parent < i for i, parent in enumerate(parents))


NOTHING = Proposal()


def chain(tokens: abc.Sequence[int], proposer: str, probs: torch.Tensor | None = None) -> Proposal:
    """Guesses one after the other."""
    return Proposal(tokens, range(-1, len(tokens) - 1), [proposer] * len(tokens), probs) if tokens else NOTHING


def depths(parents: abc.Sequence[int]) -> list[int]:
    """How far each guess of a tree lies after the certain token, from 1."""
    by_guess: list[int] = []
    for parent in parents:
        by_guess.append(1 if parent < 0 else by_guess[parent] + 1)
    return by_guess


def no_deeper(proposal: Proposal, depth: int) -> Proposal:
    """The part of a tree that lies at most `depth` tokens after the certain one."""
    by_guess = depths(proposal.parents)
    if max(by_guess, default=0) <= depth:
        return proposal
    stays = [i for i, d in enumerate(by_guess) if d <= depth]
    place = {-1: -1} | {old: new for new, old in enumerate(stays)}
    return Proposal(
        [proposal.tokens[i] for i in stays],
        [place[proposal.parents[i]] for i in stays],
        [proposal.proposers[i] for i in stays] if proposal.proposers else (),
        None if proposal.probs is None else proposal.probs[stays],
    )
