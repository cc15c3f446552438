"""Guesses of several proposers in one tree: a tree doesn't care who proposed a node (notebooks 07 and 08)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from helpers.decoding.proposals import NOTHING, Proposal, Proposer
from helpers.errors import CourseError


def merged(proposals: Sequence[Proposal]) -> Proposal:
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


def want_hidden(proposers: Sequence[Proposer]) -> bool:
    """Whether any of them does."""
    return any(getattr(proposer, "wants_hidden", True) for proposer in proposers)


class Together:
    """Asks all proposers and puts their guesses into one tree."""

    def __init__(self, *proposers: Proposer):
        self.proposers, self.wants_hidden = proposers, want_hidden(proposers)

    def propose(self, tokens: Sequence[int], hidden: torch.Tensor | None = None) -> Proposal:
        return merged([proposer.propose(tokens, hidden) for proposer in self.proposers])


class FirstOf:
    """Asks one proposer after the other until one has a guess: the cheap ones first."""

    def __init__(self, *proposers: Proposer):
        self.proposers, self.wants_hidden = proposers, want_hidden(proposers)

    def propose(self, tokens: Sequence[int], hidden: torch.Tensor | None = None) -> Proposal:
        for proposer in self.proposers:
            proposal = proposer.propose(tokens, hidden)
            if proposal.tokens:
                return proposal
        return NOTHING


class Relay:
    """Builds one chain of at most `count` guesses, each by the first proposer that knows how to go on: where a copied
    name ends a phrase may follow, and after it the next name."""

    def __init__(self, *proposers: Proposer, count: int = 4):
        if count < 1:
            raise CourseError("A relay guesses at least one token: give count >= 1.")
        self.proposers, self.count, self.wants_hidden = proposers, count, want_hidden(proposers)

    def propose(self, tokens: Sequence[int], hidden: torch.Tensor | None = None) -> Proposal:
        guesses: list[int] = []
        guessers: list[str] = []
        while len(guesses) < self.count:
            found = FirstOf(*self.proposers).propose([*tokens, *guesses], hidden)
            if not found.tokens:
                break
            first_path = chain_from(found)[: self.count - len(guesses)]
            guesses += [found.tokens[i] for i in first_path]
            guessers += [found.proposers[i] for i in first_path]
        return Proposal(guesses, range(-1, len(guesses) - 1), guessers) if guesses else NOTHING


def chain_from(proposal: Proposal) -> list[int]:
    """The indices of a proposal's first path, from its root down."""
    path, here = [], -1
    while here in proposal.parents:
        here = list(proposal.parents).index(here)
        path.append(here)
    return path
