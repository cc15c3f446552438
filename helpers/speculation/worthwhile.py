"""One tree for all guessers, with the nodes that are worth their place in a step on this machine (notebook 08).

A node brings a token with some chance, and a token is worth the seconds that one costs now. It costs what a step takes
longer that reads one token more. What counts is the sum: the nodes are added from the likeliest down, and the tree ends
where it gains most. A machine on which further tokens cost little gets large trees, another gets small ones, and where
nobody has a good guess the tree is empty. (EAGLE-2, Li et al. 2024, grows its trees by confidence as well, to a fixed
size.)
"""

from __future__ import annotations

from collections import abc, defaultdict
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from helpers.decoding.proposals import MAX_GUESSES, NOTHING, Proposal
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.node_chances import Chances, labels_of


class Node(NamedTuple):
    """A guess in the tree of all guessers: `parent` is a node's place or -1, `chance` how likely all up to it are
    right."""

    token: int
    parent: int
    proposer: str
    chance: float


def nodes_of(proposals: abc.Sequence[Proposal], chances: Chances) -> list[Node]:
    """All guesses as one tree, a parent before its children.

    What several guessed is there once, for the first of them, and likelier: all of them would have to be wrong. Nobody
    is likelier than what stands before him.
    """
    found: dict[tuple[int, int], int] = {}
    tokens, parents, proposers, misses = [], [], [], []
    for guesser, proposal in enumerate(proposals):
        place = {-1: -1}
        parts = zip(proposal.tokens, proposal.parents, proposal.proposers, labels_of(proposal), strict=True)
        for i, (token, parent, proposer, label) in enumerate(parts):
            node = (place[parent], token)
            if node not in found:
                found[node] = len(tokens)
                tokens.append(token)
                parents.append(node[0])
                proposers.append(proposer)
                misses.append(1.0)
            place[i] = found[node]
            misses[place[i]] *= 1 - chances.get((guesser, label), 0.0)
    nodes: list[Node] = []
    for token, parent, proposer, miss in zip(tokens, parents, proposers, misses):
        before = nodes[parent].chance if parent >= 0 else 1.0
        nodes.append(Node(token, parent, proposer, min(1 - miss, before)))
    return nodes


def worthwhile(
    nodes: abc.Sequence[Node],
    more_seconds: abc.Sequence[float],
    token_seconds: float,
) -> list[int]:
    """The places of the nodes to check, the likeliest first; a node never without its
    parent.

    `more_seconds[n]`: how much longer a step takes with n guesses than with none;
    `token_seconds`: what a token costs now.
    """
    order = sorted(range(len(nodes)), key=lambda i: -nodes[i].chance)
    gain, most, best = 0.0, 0.0, 0
    for n, i in enumerate(order[: len(more_seconds) - 1], 1):
        gain += nodes[i].chance * token_seconds
        if gain - more_seconds[n] > most:
            best, most = n, gain - more_seconds[n]
    return order[:best]


def as_proposal(nodes: abc.Sequence[Node], chosen: abc.Sequence[int]) -> Proposal:
    """The chosen nodes, the likeliest path in one piece: where it is right, the cache has nothing to move."""
    children: dict[int, list[int]] = defaultdict(list)
    for i in chosen:
        children[nodes[i].parent].append(i)
    order, waiting = [], children[-1][::-1]
    while waiting:
        order.append(waiting.pop())
        waiting += children[order[-1]][::-1]
    place = {-1: -1} | {i: new for new, i in enumerate(order)}
    picked = [nodes[i] for i in order]
    return (
        Proposal([n.token for n in picked], [place[n.parent] for n in picked], [n.proposer for n in picked])
        if picked
        else NOTHING
    )


class NodeChoice:
    """Makes one tree of all guessers' proposals, of the nodes that pay."""

    def __init__(
        self,
        chances: Chances,
        step_seconds: Callable[[int], float],
        token_seconds: float,
        most: int = MAX_GUESSES,
    ):
        """`step_seconds(num_tokens)` is this machine's verify cost, `token_seconds` what a token costs with guesses
        (plan.py finds it), `most` the largest tree."""
        if not 0 < most <= MAX_GUESSES:
            raise CourseError(f"A tree has room for 1 to {MAX_GUESSES} guesses, not {most}.")
        self.chances, self.token_seconds = chances, token_seconds
        self.more_seconds = [step_seconds(n + 1) - step_seconds(1) for n in range(most + 1)]

    def tree(self, proposals: abc.Sequence[Proposal]) -> Proposal:
        """The tree of what the guessers proposed for one sequence."""
        nodes = nodes_of(proposals, self.chances)
        return as_proposal(nodes, worthwhile(nodes, self.more_seconds, self.token_seconds))


class WorthwhileTree(Proposer):
    """Asks all guessers, and proposes those of their nodes that pay."""

    def __init__(self, guessers: abc.Sequence[Proposer], choice: NodeChoice):
        self.guessers, self.choice = list(guessers), choice

    def propose(self, sequences: list[Sequence], hidden: Tensor) -> list[Proposal]:
        by_guesser = [guesser.propose(sequences, hidden) for guesser in self.guessers]
        return [self.choice.tree(proposals) for proposals in zip(*by_guesser, strict=True)]

    def release(self, sequence: Sequence) -> None:
        for guesser in self.guessers:
            guesser.release(sequence)
