"""Medusa heads whose tree follows how sure they are (notebook 08).

A fixed tree checks a head's third guess whether the head is sure of its first or not. Here the likeliest paths are
taken, by the product of the heads' own probabilities, and each node's label is its depth and that product, in steps of
a factor: how far the product can be trusted is counted (node_chances.py). EAGLE-2 (Li et al. 2024) does so for its
drafts.
"""

from __future__ import annotations

import heapq
import math

from torch import Tensor

from helpers.decoding.proposals import Proposal
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.speculation.node_chances import Labelled

STEP = math.log(1.5)  # of a label: the products of one label differ by at most this factor
LAST = 15  # the label of all smaller products


class ConfidentMedusa(Proposer):
    """Proposes the `count` likeliest nodes among each head's `width` best guesses, by the heads' own probabilities."""

    def __init__(self, heads: MedusaHeads, count: int = 24, width: int = 6):
        if count < 1 or width < 1:
            raise CourseError("A tree of the likeliest nodes needs count >= 1 and width >= 1.")
        heads.check_width(width)
        self.heads, self.count, self.width = heads, count, width
        self.names = [f"head {depth}" for depth in range(1, heads.count + 1)]

    def propose(self, sequences: list[Sequence], hidden: Tensor) -> list[Proposal]:
        ids, log_probs = self.heads.most_likely(hidden, self.width)  # (heads, sequences, width)
        by_sequence = zip(ids.transpose(0, 1).tolist(), log_probs.transpose(0, 1).tolist(), strict=True)
        return [self._tree(*each) for each in by_sequence]

    def _tree(self, ids: list[list[int]], log_probs: list[list[float]]) -> Proposal:
        """The likeliest paths of guesses (heads, width), as a tree."""
        tokens, parents, proposers, labels = [], [], [], []
        waiting = [(-log_probs[0][0], 0, 0, -1, 0.0)]  # (loss of the path, depth, rank, parent, loss of the parent)
        while waiting and len(tokens) < self.count:
            loss, depth, rank, parent, before = heapq.heappop(waiting)
            if rank + 1 < self.width:  # the next best sibling
                heapq.heappush(waiting, (before - log_probs[depth][rank + 1], depth, rank + 1, parent, before))
            if depth + 1 < len(ids):  # what may follow
                heapq.heappush(waiting, (loss - log_probs[depth + 1][0], depth + 1, 0, len(tokens), loss))
            tokens.append(ids[depth][rank])
            parents.append(parent)
            proposers.append(self.names[depth])
            labels.append((depth + 1, min(LAST, int(loss / STEP))))
        return Labelled(tokens, parents, proposers, labels=labels)
