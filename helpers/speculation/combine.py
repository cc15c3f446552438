"""Guesses of several proposers in one tree: a tree doesn't care who proposed a node (notebooks 07 and 08)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from helpers.decoding.proposals import NOTHING, Proposal
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError


def merged(proposals: Iterable[Proposal]) -> Proposal:
    """One tree with every path of all `proposals`; a node that several guessed is there once, for the first of them."""
    tokens: list[int] = []
    parents: list[int] = []
    proposers: list[str] = []
    known: dict[tuple[int, int], int] = {}
    for proposal in proposals:
        if proposal.probs is not None:
            raise CourseError("Guesses that were drawn at random can't share a tree: sample with one drafter alone.")
        place = {-1: -1}
        for i, (token, parent, who) in enumerate(zip(proposal.tokens, proposal.parents, proposal.proposers)):
            node = (place[parent], token)
            if node not in known:
                known[node] = len(tokens)
                tokens.append(token)
                parents.append(place[parent])
                proposers.append(who)
            place[i] = known[node]
    return Proposal(tokens, parents, proposers)


class Together(Proposer):
    """Asks all proposers and puts their guesses into one tree."""

    def __init__(self, *proposers: Proposer):
        self.proposers = proposers

    def propose(self, sequences: list[Sequence], hidden: Tensor) -> list[Proposal]:
        by_proposer = [p.propose(sequences, hidden) for p in self.proposers]
        return [merged(of_sequence) for of_sequence in zip(*by_proposer, strict=True)]

    def release(self, sequence: Sequence) -> None:
        for proposer in self.proposers:
            proposer.release(sequence)


class FirstOf(Together):
    """Asks one proposer after the other until one has a guess: the cheap ones first."""

    def propose(self, sequences: list[Sequence], hidden: Tensor) -> list[Proposal]:
        proposals = [NOTHING] * len(sequences)
        for proposer in self.proposers:
            empty = [i for i, proposal in enumerate(proposals) if not proposal.tokens]
            if not empty:
                break
            asked = [sequences[i] for i in empty]
            answers = proposer.propose(asked, hidden[empty])
            for i, proposal in zip(empty, answers, strict=True):
                proposals[i] = proposal
        return proposals


class Relay(Together):
    """Builds one chain of at most `count` guesses, each by the first proposer that knows how to go on: where a copied
    name ends a phrase may follow, and after it the next name."""

    def __init__(self, *proposers: Proposer, count: int = 4):
        super().__init__(*proposers)
        if count < 1:
            raise CourseError("A relay guesses at least one token: give count >= 1.")
        self.first, self.count = FirstOf(*proposers), count

    def propose(self, sequences: list[Sequence], hidden: Tensor) -> list[Proposal]:
        return [self._chain(sequence, hidden[i : i + 1]) for i, sequence in enumerate(sequences)]

    def _chain(self, sequence: Sequence, hidden: Tensor) -> Proposal:
        guesses: list[int] = []
        guessers: list[str] = []
        while len(guesses) < self.count:
            [proposal] = self.first.propose([sequence.ahead(guesses)], hidden)
            if not proposal.tokens:
                break
            first_path = chain_from(proposal)[: self.count - len(guesses)]
            guesses += [proposal.tokens[i] for i in first_path]
            guessers += [proposal.proposers[i] for i in first_path]
        return Proposal(guesses, range(-1, len(guesses) - 1), guessers) if guesses else NOTHING


def chain_from(proposal: Proposal) -> list[int]:
    """The indices of a proposal's first path, from its root down."""
    path, here = [], -1
    while here in proposal.parents:
        here = list(proposal.parents).index(here)
        path.append(here)
    return path
