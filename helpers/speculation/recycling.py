"""Token Recycling: what the model nearly said once may be what it says next time (notebook 07).

Luo et al., "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token Recycling", 2024.
Each step computes scores for the whole vocabulary, after every token that it read, and all but one are thrown away.
Here a table keeps for each token the last `TOP` successors that the model itself gave it, best first. Guesses are a walk
through that table from the last token on, as a tree of fixed shape. Nothing is trained, and nothing has to be stored.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from helpers.decoding.proposals import NOTHING, Proposal
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError

TOP, DEEPEST = 8, 6  # successors of a token, tokens of a path
BLOCK = 128  # logits

Path = tuple[int, ...]  # at each depth the rank of a successor, from 0


def fixed_tree(size: int) -> list[Path]:
    """The shape: `size` paths of ranks, those first that are likely to be right. A successor of the next rank counts as
    much as two tokens more depth."""
    if size < 1:
        raise CourseError("A tree of recycled tokens guesses at least one: give size >= 1.")
    paths, level = [], [()]
    for _ in range(DEEPEST):
        level = [(*path, rank) for path in level for rank in range(TOP) if _cost((*path, rank)) <= 2 * TOP]
        paths += level
    chosen = sorted(paths, key=lambda path: (_cost(path), path))[:size]
    return sorted(chosen)  # the best path first, in one piece: where it is right, the cache has nothing to move


def _cost(path: Path) -> int:
    return sum(1 + 2 * rank for rank in path)


def top_tokens(logits: Tensor, k: int) -> Tensor:
    """The `k` tokens with the largest logits, best first: (rows, k) of (rows, vocabulary).

    As `topk`, and several times as fast: all of them lie in the `k` blocks whose largest logits are the largest.
    """
    rows, vocabulary = logits.shape
    if vocabulary % BLOCK or vocabulary // BLOCK <= k:
        return logits.topk(min(k, vocabulary)).indices
    blocks = logits.view(rows, -1, BLOCK)
    best = blocks.amax(-1).topk(k).indices  # (rows, k)
    candidates = blocks.gather(1, best[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    places = candidates.topk(k).indices
    return best.gather(1, places // BLOCK) * BLOCK + places % BLOCK


class TokenRecycling(Proposer):
    """Proposes a tree of fixed shape from the table of last successors, which all sequences share and fill."""

    def __init__(self, tree: Collection[Path] = tuple(fixed_tree(16))):
        self.tree = sorted(tree)
        missing = [path for path in self.tree if len(path) > 1 and path[:-1] not in tree]
        if not self.tree or () in tree or missing:
            raise CourseError("A tree of recycled tokens holds every node's parent: take fixed_tree(size).")
        self.successors: dict[int, list[int]] = {}
        self.learned: dict[int, Tensor] = {}  # by sequence: the logits that are in the table already

    def propose(self, sequences: list[Sequence], hidden: Tensor | None = None) -> list[Proposal]:
        for sequence in sequences:
            self._learn(sequence)
        return [self.guess(sequence.known[-1]) for sequence in sequences]

    def guess(self, token: int) -> Proposal:
        """The tree that grows from a token, as far as the table goes; a successor twice under one parent counts once."""
        place, tokens, parents = {(): -1}, [], []
        for path in self.tree:
            parent = place.get(path[:-1])
            if parent is None:
                continue
            known = self.successors.get(token if parent < 0 else tokens[parent], ())
            if path[-1] < len(known):
                place[path] = len(tokens)
                tokens.append(known[path[-1]])
                parents.append(parent)
        return Proposal(tokens, parents, ["recycling"] * len(tokens)) if tokens else NOTHING

    def release(self, sequence: Sequence) -> None:
        self.learned.pop(sequence.id, None)  # the table stays: it knows the model, not the sequence

    def _learn(self, sequence: Sequence) -> None:
        """Keep what the model gave each token that it read, in the last step."""
        if sequence.logits is None or self.learned.get(sequence.id) is sequence.logits:
            return
        self.learned[sequence.id] = sequence.logits
        self.successors.update(zip(sequence.read, top_tokens(sequence.logits, TOP).tolist(), strict=True))
