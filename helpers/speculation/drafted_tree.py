"""The tree of a recurrent drafter's likeliest continuations (notebook 08).

A beam goes on from the best few guesses of each depth; what it sees on the way are the nodes of the tree, each with its
probability as its label (Zhang et al. 2024 verify the beam's paths, which share their beginnings).
"""

from __future__ import annotations

import torch

from helpers.decoding.proposals import MAX_GUESSES, Proposal
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.medusa_confidence import LAST, STEP
from helpers.speculation.node_chances import Labelled
from helpers.speculation.recurrent_drafter import RecurrentDrafter


class DraftedTree(Proposer):
    """Proposes what the drafter thinks may come: of each depth the `beam` likeliest paths are gone on from, each by its
    `width` likeliest tokens, as long as a path has `least` probability."""

    def __init__(self, drafter: RecurrentDrafter, depth: int = 5, beam: int = 3, width: int = 4, least: float = 0.05):
        if min(depth, beam, width) < 1 or not 0 <= least < 1:
            raise CourseError("A drafted tree needs depth, beam and width of 1 or more, and `least` from 0 to 1.")
        if width + (depth - 1) * beam * width > MAX_GUESSES:
            raise CourseError(f"A drafted tree has at most {MAX_GUESSES} guesses: take less depth, beam or width.")
        self.drafter, self.depth, self.beam, self.least = drafter, depth, beam, least
        self.width = min(width, len(drafter.token_ids))

    def propose(self, sequences: list[Sequence], hidden: torch.Tensor) -> list[Proposal]:
        return [self._tree(sequence.known[-1], hidden[i : i + 1]) for i, sequence in enumerate(sequences)]

    def _tree(self, token: int, state: torch.Tensor) -> Proposal:
        drafter = self.drafter
        columns = drafter.columns(torch.tensor([token], device=state.device))
        paths, before = [-1], torch.zeros(1, 1, device=state.device)  # where they end, their log-probability
        tokens, parents, labels = [], [], []
        for depth in range(1, self.depth + 1):
            state = drafter.next_state(state, columns)
            logits = drafter.lm_head(state).float()
            best, places = logits.topk(self.width, -1)
            log_probs = (before + best - logits.logsumexp(-1, keepdim=True)).flatten()
            first = len(tokens)
            tokens += drafter.token_ids[places].flatten().tolist()
            parents += [path for path in paths for _ in range(self.width)]
            labels += [(depth, min(LAST, int(-p / STEP))) for p in log_probs.tolist()]
            before, on = log_probs.topk(min(self.beam, len(log_probs)))
            on = on[before.exp() >= self.least]
            if not len(on):
                break
            paths = (first + on).tolist()
            before, state, columns = log_probs[on][:, None], state[on // self.width], places.flatten()[on]
        return Labelled(tokens, parents, ["drafter"] * len(tokens), labels=labels)
