"""The tree of a recurrent drafter's likeliest continuations (notebook 08).

A beam goes on from the best few guesses of each depth; what it sees on the way are the nodes of the tree, each with its
probability as its label (Zhang et al. 2024 verify the beam's paths, which share their beginnings).
"""

from __future__ import annotations

import math
from functools import partial

import torch

from helpers.decoding.proposals import MAX_GUESSES, Proposal, depths
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.kernels.native import native_drafter
from helpers.speculation.medusa_confidence import LAST, STEP
from helpers.speculation.node_chances import Labelled
from helpers.speculation.recurrent_drafter import RecurrentDrafter


def beam_search(
    drafter: RecurrentDrafter, state: torch.Tensor, column: int, depth: int, beam: int, width: int, least: float
) -> tuple[list[int], list[int], list[float]]:
    """Of each depth the `beam` likeliest paths are gone on from, each by its `width` likeliest tokens, as long as a
    path has `least` log-probability; the first from `state` (1, hidden) and the column of the token that it made.

    Returns:
        of each node its column, its parent (-1: the token that is certain) and its path's log-probability.
    """
    read = torch.tensor([column], device=state.device)
    paths, before = [-1], torch.zeros(1, 1, device=state.device)  # where they end, their log-probability
    columns, parents, chances = [], [], []
    for _ in range(depth):
        state = drafter.next_state(state, read)
        logits = drafter.lm_head(state).float()
        best, places = logits.topk(width, -1)
        log_probs = (before + best - logits.logsumexp(-1, keepdim=True)).flatten()
        first = len(columns)
        columns += places.flatten().tolist()
        parents += [path for path in paths for _ in range(width)]
        chances += log_probs.tolist()
        before, on = log_probs.topk(min(beam, len(log_probs)))
        on = on[before >= least]
        if not len(on):
            break
        paths = (first + on).tolist()
        before, state, read = log_probs[on][:, None], state[on // width], places.flatten()[on]
    return columns, parents, chances


class DraftedTree(Proposer):
    """Proposes what the drafter thinks may come, the nodes of `beam_search`; in C++ where that can be had."""

    def __init__(self, drafter: RecurrentDrafter, depth: int = 5, beam: int = 3, width: int = 4, least: float = 0.05):
        if min(depth, beam, width) < 1 or not 0 <= least < 1:
            raise CourseError("A drafted tree needs depth, beam and width of 1 or more, and `least` from 0 to 1.")
        if width + (depth - 1) * beam * width > MAX_GUESSES:
            raise CourseError(f"A drafted tree has at most {MAX_GUESSES} guesses: take less depth, beam or width.")
        self.token_ids = drafter.token_ids.tolist()
        self.column_of = {token: column for column, token in enumerate(self.token_ids)}
        native = native_drafter.NativeDrafter(drafter) if native_drafter.can_be_had(drafter) else None
        search = native.beam_search if native else partial(beam_search, drafter)
        width, least = min(width, len(drafter.token_ids)), math.log(least) if least else -math.inf
        self.search = partial(search, depth=depth, beam=beam, width=width, least=least)

    def propose(self, sequences: list[Sequence], hidden: torch.Tensor) -> list[Proposal]:
        return [self._tree(sequence.known[-1], hidden[i : i + 1]) for i, sequence in enumerate(sequences)]

    def _tree(self, token: int, state: torch.Tensor) -> Proposal:
        columns, parents, chances = self.search(state, self.column_of.get(token, 0))
        depth_of = depths(parents)
        labels = [(depth, min(LAST, int(-chance / STEP))) for depth, chance in zip(depth_of, chances, strict=True)]
        tokens = [self.token_ids[column] for column in columns]
        return Labelled(tokens, parents, ["drafter"] * len(tokens), labels=labels)
