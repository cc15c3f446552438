"""Examples share rows, and questions that share a schema share it, too: it is read once for all of them (notebook 03).

A group of examples becomes a tree: the prompt tokens that they all begin with, then a branch for each question with its
answer. A branch sees the beginning and itself, at the positions that it would have alone, so the model learns exactly
what it will meet. A row is filled with several trees, blind to each other, best-fit decreasing (Krell et al.,
"Efficient Sequence Packing without Cross-contamination", 2021).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch

from helpers.errors import CourseError
from helpers.training.completions import IGNORED, Encoded


@dataclass(frozen=True)
class Tree:
    """Examples that begin with the same `num_shared` tokens, all of them prompt."""

    examples: tuple[Encoded, ...]
    num_shared: int = 0

    def __len__(self) -> int:
        return self.num_shared + sum(len(e.ids) - self.num_shared for e in self.examples)


def tree_of(examples: Sequence[Encoded]) -> Tree:
    """Examples with all the prompt tokens shared that they begin with; each keeps one of its prompt's at least."""
    if len(examples) == 1:
        return Tree(tuple(examples))
    shortest = min(e.labels.count(IGNORED) for e in examples) - 1
    equal = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*(e.ids[:shortest] for e in examples)))
    return Tree(tuple(examples), sum(1 for _ in equal))


def trees_of(groups: Sequence[Sequence[Encoded]], length: int) -> list[Tree]:
    """Each group as a tree, or as several of at most `length` tokens."""
    trees = []
    for group in groups:
        tree = tree_of(group[:1])
        for example in group[1:]:
            larger = tree_of([*tree.examples, example])
            if len(larger) > length:
                trees.append(tree)
            tree = larger if len(larger) <= length else tree_of([example])
        trees.append(tree)
    return trees


def pack(trees: Sequence[Tree], length: int) -> list[list[Tree]]:
    """Rows of at most `length` tokens. The longest trees are placed first, each in the
    fullest row with room for it (best-fit decreasing)."""
    too_long = sum(len(tree) > length for tree in trees)
    if too_long:
        trouble = f"{too_long} examples are longer than {length} tokens"
        raise CourseError(f"{trouble}: give a larger --max_seq_length.")
    rows: list[list[Tree]] = []
    with_room: dict[int, list[list[Tree]]] = defaultdict(list)  # tokens that still fit
    for tree in sorted(trees, key=len, reverse=True):
        rooms = range(len(tree), length + 1)
        room = next((room for room in rooms if with_room[room]), None)
        if room is None:
            room = length
            rows.append([])
            with_room[room].append(rows[-1])
        row = with_room[room].pop()
        row.append(tree)
        with_room[room - len(tree)].append(row)
    return rows


def collate(rows: Sequence[Sequence[Tree]], pad: int, length: int = 0) -> dict[str, torch.Tensor]:
    """Rows as tensors: input_ids, position_ids and labels (rows, n), attention_mask (rows, 1, n, n), True where a token
    sees another; n is the longest row's length, or `length` if that is more."""
    shape = len(rows), max(length, *(sum(map(len, row)) for row in rows))
    ids, labels = torch.full(shape, pad), torch.full(shape, IGNORED)
    positions, trees, branches = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    for r, row in enumerate(rows):
        start = 0
        for number, tree in enumerate(row, 1):
            shared = slice(start, start + tree.num_shared)
            trees[r, start : start + len(tree)] = number
            ids[r, shared] = torch.tensor(tree.examples[0].ids[: tree.num_shared], dtype=torch.long)
            positions[r, shared] = torch.arange(tree.num_shared)
            start = shared.stop
            for branch, example in enumerate(tree.examples, 1):
                own = slice(tree.num_shared, len(example.ids))
                here = slice(start, start + len(example.ids) - tree.num_shared)
                ids[r, here], labels[r, here] = torch.tensor(example.ids[own]), torch.tensor(example.labels[own])
                positions[r, here], branches[r, here] = torch.arange(tree.num_shared, len(example.ids)), branch
                labels[r, start] = IGNORED  # a branch's first token follows no token of its own
                start = here.stop
    return {
        "input_ids": ids,
        "position_ids": positions,
        "attention_mask": _sees(trees, branches)[:, None],
        "labels": labels,
    }


def _sees(trees: torch.Tensor, branches: torch.Tensor) -> torch.Tensor:
    """(rows, n, n): a token sees its tree's beginning (branch 0) and its own branch, as far as it has come."""
    n = trees.shape[1]
    same_tree = trees[:, :, None] == trees[:, None]
    same_branch = (branches[:, :, None] == branches[:, None]) | (branches == 0)[:, None]
    return same_tree & same_branch & torch.ones(n, n, dtype=torch.bool).tril()


@torch.no_grad()
def separates_branches(model) -> bool:
    """Whether a model takes such a mask, and positions that start again: examples that share a row then answer as each
    does alone. So it is in Llama and its relatives, and not in models without positions to look at (Falcon, Bloom)."""
    examples = [Encoded([5, 6, *own], [IGNORED] * 3 + own[1:]) for own in ([7, 8], [9, 7, 6], [8, 8])]
    together = _logits(model, [[tree_of(examples[:2]), tree_of(examples[2:])]])
    alone = torch.cat([_logits(model, [[tree_of([e])]])[:, from_:] for e, from_ in zip(examples, (0, 2, 0))], 1)
    return bool((together - alone).abs().max() <= 0.05 * alone.abs().max())


def _logits(model, rows: list[list[Tree]]) -> torch.Tensor:
    inputs = {name: tensor.to(model.device) for name, tensor in collate(rows, 0).items() if name != "labels"}
    return model(**inputs, use_cache=False).logits
