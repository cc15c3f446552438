"""Proposes a tree of what Medusa heads guess (notebook 08; Cai et al. 2024)."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from helpers.decoding.proposals import Proposal
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.medusa_heads import MedusaHeads

Tree = Collection[tuple[int, ...]]  # a node is the path to it: at each depth the rank of the head's guess, from 0

CHAIN: Tree = tuple((0,) * depth for depth in range(1, 6))  # each of five heads' best guess


class Medusa(Proposer):
    """Proposes a tree of what the heads guess: node (0, 2) follows the first head's best guess with the second head's
    third best."""

    def __init__(self, heads: MedusaHeads, tree: Tree = CHAIN):
        nodes = sorted(tree)  # the best path first, in one piece: where it is right, the cache has nothing to move
        place = {(): -1} | {path: i for i, path in enumerate(nodes)}
        missing = [path for path in nodes if path[:-1] not in place]
        if missing or len(place) != len(nodes) + 1 or () in nodes:
            raise CourseError(f"A tree holds each node once and the way to it, too: {missing or nodes} lacks that.")
        if (deepest := max(map(len, nodes), default=0)) > heads.count:
            raise CourseError(f"The tree is {deepest} deep, and there are {heads.count} heads: take a flatter tree.")
        self.heads = heads
        self.width = 1 + max((rank for path in nodes for rank in path), default=0)
        heads.check_width(self.width)
        # Which of all heads' best guesses a node is: head after head, `width` of each.
        self.picks = [(len(path) - 1) * self.width + path[-1] for path in nodes]
        self.parents = tuple(place[path[:-1]] for path in nodes)
        self.names = tuple(f"head {len(path)}" for path in nodes)

    def propose(self, sequences: list[Sequence], hidden: Tensor) -> list[Proposal]:
        # (heads, sequences, width)
        best = self.heads.best(hidden, self.width)
        rows = best.transpose(0, 1).flatten(1).tolist()
        guesses = [[row[pick] for pick in self.picks] for row in rows]
        return [Proposal(tokens, self.parents, self.names) for tokens in guesses]
