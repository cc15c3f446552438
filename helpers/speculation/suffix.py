"""Guesses what followed the longest match: in prompt and answer, and if warm in earlier answers (notebook 07).

Hu et al., "SAM Decoding", 2024; searching past answers as well: Oliaro et al., "SuffixDecoding", 2024.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Iterable
from dataclasses import dataclass, field

from helpers.decoding.proposals import NOTHING, Proposal, chain
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.suffix_automaton import END, SuffixAutomaton


@dataclass
class _Own:
    """What is kept for one sequence: the automaton of its text, and its match with earlier answers."""

    text: SuffixAutomaton = field(default_factory=SuffixAutomaton)
    state: int = 0
    length: int = 0


class SuffixMatch(Proposer):
    """Proposes the `count` tokens that followed the longest earlier occurrence of the text's end.

    A match of fewer than `shortest` tokens is none. `earlier` answers (token ids) are searched, too; with `warm=True`
    an answer is one of them once it is done. Of matches equally long the one in the own text counts.
    """

    def __init__(
        self, count: int = 5, shortest: int = 1, warm: bool = False, earlier: Iterable[abc.Sequence[int]] = ()
    ):
        if count < 1 or shortest < 1:
            raise CourseError("A suffix match needs count >= 1 and shortest >= 1.")
        self.count, self.shortest, self.warm = count, shortest, warm
        self.earlier = SuffixAutomaton()
        for answer in earlier:
            self._keep(answer)
        self.own: dict[int, _Own] = {}

    def propose(self, sequences: list[Sequence], hidden=None) -> list[Proposal]:
        return [self.guess(sequence) for sequence in sequences]

    def guess(self, sequence: Sequence) -> Proposal:
        """A chain of what followed the longest match."""
        own = self._read(sequence)
        length, place = own.text.match()
        found, name = own.text, "suffix"
        if own.length > length:
            length, place, found, name = own.length, self.earlier.end[own.state], self.earlier, "earlier answer"
        return chain(found.following(place, self.count), name) if length >= self.shortest else NOTHING

    def release(self, sequence: Sequence) -> None:
        self.own.pop(sequence.id, None)
        if self.warm:
            self._keep(sequence.written)

    def _keep(self, answer: abc.Sequence[int]) -> None:
        for token in (*answer, END):
            self.earlier.add(token)

    def _read(self, sequence: Sequence) -> _Own:
        """What is kept of the sequence, after reading what is new of it; anew, if it is not what it was."""
        own = self.own.get(sequence.id)
        if own is None or own.text.tokens != sequence.known[: len(own.text.tokens)]:
            own = self.own[sequence.id] = _Own()
        for token in sequence.known[len(own.text.tokens) :]:
            own.text.add(token)
            own.state, own.length = self.earlier.walk(own.state, own.length, token)
        return own
