"""The tree of a recurrent drafter's likeliest continuations (notebook 08).

A beam goes on from the best few guesses of each depth; what it sees on the way are the nodes of the tree, each with its
probability as its label (Zhang et al. 2024 verify the beam's paths, which share their beginnings).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Protocol

import torch

from helpers.decoding.proposals import MAX_GUESSES, Proposal, depths
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.medusa_confidence import LAST, STEP
from helpers.speculation.node_chances import Labelled


class Drafter(Protocol):
    """What guesses: a RecurrentDrafter, or its weights in another form."""

    token_ids: torch.Tensor

    def beam_search(
        self, state: torch.Tensor, column: int, depth: int, beam: int, width: int, least: float
    ) -> tuple[list[int], list[int], list[float]]:
        """As RecurrentDrafter's."""


class DraftedTree(Proposer):
    """Proposes what the drafter thinks may come, the nodes of its beam search."""

    def __init__(self, drafter: Drafter, depth: int = 5, beam: int = 3, width: int = 4, least: float = 0.05):
        if min(depth, beam, width) < 1 or not 0 <= least < 1:
            raise CourseError("A drafted tree needs depth, beam and width of 1 or more, and `least` from 0 to 1.")
        if width + (depth - 1) * beam * width > MAX_GUESSES:
            raise CourseError(f"A drafted tree has at most {MAX_GUESSES} guesses: take less depth, beam or width.")
        self.token_ids = drafter.token_ids.tolist()
        self.column_of = {token: column for column, token in enumerate(self.token_ids)}
        width, least = min(width, len(drafter.token_ids)), math.log(least) if least else -math.inf
        self.search = partial(drafter.beam_search, depth=depth, beam=beam, width=width, least=least)

    def propose(self, sequences: list[Sequence], hidden: torch.Tensor) -> list[Proposal]:
        return [self._tree(sequence.known[-1], hidden[i : i + 1]) for i, sequence in enumerate(sequences)]

    def _tree(self, token: int, state: torch.Tensor) -> Proposal:
        columns, parents, chances = self.search(state, self.column_of.get(token, 0))
        depth_of = depths(parents)
        labels = [(depth, min(LAST, int(-chance / STEP))) for depth, chance in zip(depth_of, chances, strict=True)]
        tokens = [self.token_ids[column] for column in columns]
        return Labelled(tokens, parents, ["drafter"] * len(tokens), labels=labels)
