"""What whoever guesses has to answer: the place where draft models, n-grams and Medusa heads plug into the loop."""

from __future__ import annotations

from typing import Protocol

import torch

from helpers.decoding.proposals import Proposal
from helpers.decoding.sequence import Sequence


class Proposer(Protocol):
    """Guesses what comes next, for several sequences at once."""

    def propose(self, sequences: list[Sequence], hidden: torch.Tensor) -> list[Proposal]:
        """A proposal for each sequence; `hidden` (sequences, hidden) are the states that made their last tokens."""

    def release(self, sequence: Sequence) -> None:
        """The sequence is done: forget what was kept for it."""


class TokenProposer(Proposer):
    """A proposer that looks at each sequence's tokens alone."""

    def guess(self, tokens: list[int]) -> Proposal:
        """What may follow these tokens."""
        raise NotImplementedError

    def propose(self, sequences: list[Sequence], hidden: torch.Tensor | None = None) -> list[Proposal]:
        return [self.guess(sequence.known) for sequence in sequences]
