"""Guesses of what comes next: how they are written down, and who makes them (notebooks 07 and 08)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from helpers.errors import CourseError


@dataclass(frozen=True)
class Proposal:
    """Guessed tokens as a tree: token i follows token parents[i], -1 being the last token that is certain."""

    tokens: Sequence[int] = ()
    parents: Sequence[int] = ()
    proposers: Sequence[str] = ()  # who guessed each: "draft", "lookup", "head 1"
    # (guesses, vocabulary): the distributions that a chain's tokens were drawn from, if by chance
    probs: torch.Tensor | None = field(default=None, compare=False)

    def __post_init__(self):
        if len(self.parents) != len(self.tokens) or any(not -1 <= p < i for i, p in enumerate(self.parents)):
            raise CourseError("A proposal needs a parent for each token: an earlier token's index, or -1.")


NOTHING = Proposal()


class Proposer(Protocol):
    """Guesses what comes next. `hidden` is the last hidden state (hidden,), None before a model with none to give.

    An attribute `wants_hidden = False` says that it isn't needed: the model then does without collecting it.
    """

    def propose(self, tokens: Sequence[int], hidden: torch.Tensor | None) -> Proposal: ...


def chain(tokens: Sequence[int], proposer: str, probs: torch.Tensor | None = None) -> Proposal:
    """Guesses one after the other."""
    return Proposal(tokens, range(-1, len(tokens) - 1), [proposer] * len(tokens), probs) if tokens else NOTHING
