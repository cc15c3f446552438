"""A suffix automaton: the longest end of the text that stood before, found as the text grows (notebook 07).

Hu et al., "SAM Decoding: Speculative Decoding via Suffix Automaton", 2024. The automaton (Blumer et al. 1985) knows
every run of tokens of a text, in fewer than two states a token, and takes a further token in constant time on average.
Prompt lookup compares three tokens at most; here a match is as long as it can be.
"""

from __future__ import annotations

from collections.abc import Sequence

END = -1  # stands between two answers, and is never guessed


def longest_match(tokens: Sequence[int]) -> tuple[int, int]:
    """The longest end of the tokens that stood in them before: its length, and the
    place after it, the first time. By trying; the automaton finds the same."""
    for length in range(len(tokens) - 1, 0, -1):
        for start in range(len(tokens) - length):
            if tokens[start : start + length] == tokens[-length:]:
                return length, start + length
    return 0, 0


class SuffixAutomaton:
    """The text `tokens`. A state stands for runs that end at the same places: `length` of the longest of them, `link`
    to the longest shorter end that stands elsewhere, too, `end` of the first place, and `after` each further token."""

    def __init__(self):
        self.tokens: list[int] = []
        self.after: list[dict[int, int]] = [{}]
        self.length, self.link, self.end = [0], [-1], [0]
        self.last = 0

    def add(self, token: int) -> None:
        """The text goes on with this token."""
        self.tokens.append(token)
        new = self._state({}, self.length[self.last] + 1, 0, len(self.tokens))
        here, self.last = self.last, new
        while here >= 0 and token not in self.after[here]:
            self.after[here][token] = new
            here = self.link[here]
        if here >= 0:
            self.link[new] = self._ending_with(token, here)

    def _ending_with(self, token: int, here: int) -> int:
        """The state of `here`'s longest run and the token; split off, where its state holds longer runs as well."""
        there = self.after[here][token]
        if self.length[there] == self.length[here] + 1:
            return there
        split = self._state(dict(self.after[there]), self.length[here] + 1, self.link[there], self.end[there])
        self.link[there] = split
        while here >= 0 and self.after[here].get(token) == there:
            self.after[here][token] = split
            here = self.link[here]
        return split

    def _state(self, after: dict[int, int], length: int, link: int, end: int) -> int:
        self.after.append(after)
        self.length.append(length)
        self.link.append(link)
        self.end.append(end)
        return len(self.length) - 1

    def match(self) -> tuple[int, int]:
        """Of the longest end of the text that stood in it before: its length, and the place after it there."""
        earlier = self.link[self.last] if self.last else 0
        return self.length[earlier], self.end[earlier]

    def walk(self, state: int, length: int, token: int) -> tuple[int, int]:
        """Follow another text: from the state and the length of the match so far to those after a further token."""
        while state and token not in self.after[state]:
            state = self.link[state]
            length = min(length, self.length[state])
        return (self.after[state][token], length + 1) if token in self.after[state] else (0, 0)

    def following(self, place: int, count: int) -> list[int]:
        """At most `count` tokens from a place on, up to the end of an answer."""
        found = self.tokens[place : place + count]
        return found[: found.index(END)] if END in found else found
