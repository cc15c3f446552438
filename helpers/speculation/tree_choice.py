"""Which tree of guesses: counted from how often each head was right (notebook 08; plan.py prices its steps).

The paper picks nodes by the product of the heads' accuracies, as if heads erred independently (Cai et al. 2024, section
2.3.2). Counting whole paths needs no such assumption and is as easy: the share of positions at which every guess on the
way to a node was right. A path is never right more often than its beginning, so the most frequent nodes are a tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

import torch

from helpers.speculation.medusa import Tree
from helpers.speculation.medusa_heads import MedusaHeads

Shares = dict[tuple[int, ...], float]  # of positions, by path
Ranks = Sequence[Sequence[int]]  # an answer: for each position, the rank that each head gave to what really came


@torch.inference_mode()
def ranks_of(heads: MedusaHeads, hidden: torch.Tensor, tokens: Sequence[int]) -> list[list[int]]:
    """Ranks, from 0, that the heads give to the tokens of an answer.

    Args:
        hidden: (n, hidden), the states from which the model made each of `tokens`: n of them, the end included.

    Returns:
        for each position a rank a head, only as far as the answer goes.
    """
    logits, n = heads(hidden).float(), len(tokens)
    ranks: list[list[int]] = [[] for _ in range(n)]
    for i in range(1, min(heads.count, n - 1) + 1):
        right = torch.tensor(tokens[i:], device=hidden.device)
        guessed = logits[i - 1, : n - i]
        rank = (guessed > guessed.gather(1, right[:, None])).sum(-1)
        for position, value in enumerate(rank.tolist()):
            ranks[position].append(value)
    return ranks


def path_shares(answers: Sequence[Ranks], width: int = 10) -> Shares:
    """For each path of ranks below `width`: the share of positions at which it was what
    came."""
    counts: Counter[tuple[int, ...]] = Counter()
    positions = [ranks for answer in answers for ranks in answer]
    for ranks in positions:
        path = tuple(takewhile(lambda rank: rank < width, ranks))
        counts.update(path[:depth] for depth in range(1, len(path) + 1))
    return {path: count / len(positions) for path, count in counts.items()}


def best_tree(shares: Shares, size: int) -> Tree:
    """The tree of `size` nodes that is right most often, counted as `path_shares` does."""
    return sorted(shares, key=lambda path: (-shares[path], len(path), path))[:size]


def accepted_steps(answer: Ranks, tree: Tree) -> list[int]:
    """The tokens that each step emits when this answer is decoded with this tree, the prefill's first token left out.

    Exact, not an average: after a step the next one starts where it ended.
    """
    nodes, at, emitted = set(tree), 0, []
    while at < len(answer) - 1:
        depth = 0
        while depth < len(answer[at]) and tuple(answer[at][: depth + 1]) in nodes:
            depth += 1
        emitted.append(min(1 + depth, len(answer) - 1 - at))  # nothing comes after the answer's end
        at += 1 + depth
    return emitted
