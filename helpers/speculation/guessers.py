"""The guessers of notebook 07, the heads and the recurrent drafter, by their names; each guess has a label (08).

What a prompt lookup's or a suffix match's guess is worth depends on how many tokens matched, so that number is in its
label. Guesses of Token Recycling are known by their rank; those of the heads and the drafter by how sure they are.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Iterable

from helpers.decoding.proposals import NOTHING, Proposal, depths
from helpers.decoding.proposer import Proposer, TokenProposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.drafted_tree import DraftedTree, Drafter
from helpers.speculation.medusa_confidence import ConfidentMedusa
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.speculation.ngram import continuation
from helpers.speculation.node_chances import Labelled
from helpers.speculation.recycling import TokenRecycling, fixed_tree
from helpers.speculation.suffix import SuffixMatch

NAMES = ("heads", "drafter", "lookup", "suffix", "recycling")
LONGEST_MATCH = 12  # of a suffix match's label: longer ones are equally good


class PromptTree(TokenProposer):
    """What followed the last n tokens the last time they stood there, for each n down from `longest`, in one tree."""

    def __init__(self, count: int = 8, longest: int = 4):
        if count < 1 or longest < 1:
            raise CourseError("A tree of copies needs count >= 1 and longest >= 1.")
        self.count, self.longest = count, longest

    def guess(self, tokens: abc.Sequence[int]) -> Proposal:
        known: dict[tuple[int, int], int] = {}  # (parent, token): place
        guesses, parents, labels = [], [], []
        for n in range(min(self.longest, len(tokens) - 1), 0, -1):
            here = -1
            for depth, token in enumerate(continuation(tokens, n, self.count), 1):
                if (here, token) not in known:
                    known[here, token] = len(guesses)
                    guesses.append(token)
                    parents.append(here)
                    labels.append((n, depth))
                here = known[here, token]
        return Labelled(guesses, parents, ["lookup"] * len(guesses), labels=labels) if guesses else NOTHING


class KnownSuffix(SuffixMatch):
    """A suffix match over the own text and answers that were known beforehand. It learns no further ones: where a
    prompt is asked twice, as when programs take turns, it would know the answer by heart."""

    def __init__(self, answers: Iterable[abc.Sequence[int]], count: int = 8):
        super().__init__(count=count, earlier=answers)

    def guess(self, sequence: Sequence) -> Proposal:
        proposal, own = super().guess(sequence), self.own[sequence.id]
        length = min(LONGEST_MATCH, max(own.text.match()[0], own.length))
        labels = [(length, depth) for depth in depths(proposal.parents)]
        return Labelled(proposal.tokens, proposal.parents, proposal.proposers, labels=labels)


def guesser(
    name: str,
    heads: MedusaHeads | None = None,
    answers: Iterable[abc.Sequence[int]] = (),
    drafter: Drafter | None = None,
) -> Proposer:
    """The guesser of this name; `answers` (token ids) are what a suffix match may know, training answers say."""
    if name == "heads" and heads is not None:
        return ConfidentMedusa(heads, width=min(6, heads.num_guessable))
    if name == "drafter" and drafter is not None:
        return DraftedTree(drafter)
    if name == "lookup":
        return PromptTree()
    if name == "suffix":
        return KnownSuffix(answers)
    if name == "recycling":
        return TokenRecycling(fixed_tree(24))
    raise CourseError(
        f"There is no guesser {name!r} here: take one of {', '.join(NAMES)} (heads and drafter need theirs)."
    )
