"""How often guesses of a kind are right, counted on answers that are known already (notebook 08).

A guesser's nodes are not equally good: a head's best guess is right more often than its third, a copy after three equal
tokens more often than after one. So each node has a label, its kind, and what is counted on validation answers is how
often nodes of each kind were right, with all that stands before them. No model of the guessers is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from helpers.decoding.proposals import Proposal, depths

Label = tuple[int, ...]
Chances = dict[tuple[int, Label], float]  # by the guesser's place among the guessers, and its label
CAUTION = 4  # guesses of each kind that count as wrong before any was seen: a kind seen twice says little


@dataclass(frozen=True)
class Labelled(Proposal):
    """A proposal that says of each node which kind of guess it is."""

    labels: Sequence[Label] = ()


@dataclass(frozen=True)
class Position:
    """A place in a known answer: what each guesser proposes there, and the tokens that really follow."""

    proposals: Sequence[Proposal]
    following: Sequence[int]


def labels_of(proposal: Proposal) -> Sequence[Label]:
    """Each node's kind: its own label, or else the way to it, by the ranks among siblings: (0, 2) is the third guess
    after the first one."""
    return proposal.labels if isinstance(proposal, Labelled) else rank_paths(proposal.parents)


def rank_paths(parents: Sequence[int]) -> list[Label]:
    """For each node of a tree the ranks among siblings on the way to it, from 0."""
    num_children: Counter[int] = Counter()
    paths: list[Label] = []
    for parent in parents:
        paths.append((*(paths[parent] if parent >= 0 else ()), num_children[parent]))
        num_children[parent] += 1
    return paths


def right_nodes(proposal: Proposal, following: Sequence[int]) -> list[int]:
    """The nodes that are right, and so is all before them: `following` are the tokens that really come."""
    right: set[int] = set()
    for i, (token, parent, depth) in enumerate(zip(proposal.tokens, proposal.parents, depths(proposal.parents))):
        if (parent < 0 or parent in right) and depth <= len(following) and following[depth - 1] == token:
            right.add(i)
    return sorted(right)


def count_chances(positions: Iterable[Position], caution: int = CAUTION) -> Chances:
    """For each kind of node, the share of those proposed that were right."""
    proposed: Counter = Counter()
    right: Counter = Counter()
    for position in positions:
        for guesser, proposal in enumerate(position.proposals):
            labels = labels_of(proposal)
            proposed.update((guesser, label) for label in labels)
            right.update((guesser, labels[i]) for i in right_nodes(proposal, position.following))
    return {kind: right[kind] / (count + caution) for kind, count in proposed.items()}
