"""Token Recycling: what the model nearly said once may be what it says next time (notebook 07).

Luo et al., "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token Recycling", 2024.
Each step computes scores for the whole vocabulary, after every token that it read, and all but one are thrown away.
Here a table keeps for each token the last `TOP` successors that the model itself gave it, best first. Guesses are a
walk through that table from the last token on, as a tree of fixed shape. Nothing is trained.
"""

from __future__ import annotations

from collections import abc

from torch import Tensor

from helpers.decoding.proposals import NOTHING, Proposal
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.top_tokens import top_tokens

TOP, DEEPEST = 8, 6  # successors of a token, tokens of a path

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


def grown(
    token: int,
    successors: abc.Mapping[int, abc.Sequence[int]],
    tree: abc.Sequence[Path],
) -> tuple[list[int], list[int]]:
    """The tree of this shape that grows from a token, as far as the table goes: its
    tokens, and for each the place of the one that it follows; -1: `token`."""
    place, tokens, parents = {(): -1}, [], []
    for path in tree:  # a parent stands before its children
        if path[:-1] not in place:
            continue
        parent = place[path[:-1]]
        known = successors.get(token if parent < 0 else tokens[parent], ())
        if path[-1] < len(known):
            place[path] = len(tokens)
            tokens.append(known[path[-1]])
            parents.append(parent)
    return tokens, parents


class TokenRecycling(Proposer):
    """Proposes a tree of fixed shape from the table of last successors, which all sequences share and fill."""

    def __init__(self, tree: abc.Collection[Path] = tuple(fixed_tree(16))):
        self.tree = sorted(tree)
        if not self.tree or () in tree or any(path[:-1] not in ((), *tree) for path in tree):
            raise CourseError("A tree of recycled tokens holds the way to each node, too: take fixed_tree(size).")
        self.successors: dict[int, list[int]] = {}
        self.learned: dict[int, Tensor] = {}  # by sequence: the logits that are in the table already

    def propose(self, sequences: list[Sequence], hidden: Tensor | None = None) -> list[Proposal]:
        for one in sequences:
            self._learn(one)
        return [self.guess(one.known[-1]) for one in sequences]

    def guess(self, token: int) -> Proposal:
        """The guesses after a token."""
        tokens, parents = grown(token, self.successors, self.tree)
        return Proposal(tokens, parents, ["recycling"] * len(tokens)) if tokens else NOTHING

    def release(self, sequence: Sequence) -> None:
        self.learned.pop(sequence.id, None)  # the table stays: it knows the model, not the sequence

    def _learn(self, one: Sequence) -> None:
        """Keep what the model gave each token that it read in the last step."""
        if one.logits is None or self.learned.get(one.id) is one.logits:
            return
        self.learned[one.id] = one.logits
        self.successors.update(zip(one.read, top_tokens(one.logits, TOP).tolist(), strict=True))
