"""Guesses that cost nothing: what followed the last time, in this prompt or in earlier answers (notebook 07).

Prompt lookup (Saxena 2023; "lookahead" of the n-gram kind, Yang et al. 2023) copies what stood after the same few
tokens before: names, which an answer takes from its question. A bigram table knows which token usually follows which,
from training answers; it is the null drafter that every real draft must beat.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from helpers.decoding.proposals import NOTHING, Proposal, chain
from helpers.decoding.proposer import TokenProposer
from helpers.errors import CourseError


def continuation(tokens: Sequence[int], n: int, count: int) -> Sequence[int]:
    """At most `count` tokens that followed the last earlier occurrence of the last `n`
    tokens; empty without one."""
    last = tokens[-n:]
    for start in range(len(tokens) - n - 1, -1, -1):
        if tokens[start : start + n] == last:
            return tokens[start + n : start + n + count]
    return []


class PromptLookup(TokenProposer):
    """Looks for the longest run of at most `longest` last tokens that stood before, and guesses what came after it."""

    def __init__(self, count: int = 5, longest: int = 3, shortest: int = 1):
        if count < 1 or not 1 <= shortest <= longest:
            raise CourseError("Prompt lookup needs count >= 1 and 1 <= shortest <= longest.")
        self.count, self.longest, self.shortest = count, longest, shortest

    def guess(self, tokens: Sequence[int]) -> Proposal:
        tokens = list(tokens)
        for n in range(min(self.longest, len(tokens) - 1), self.shortest - 1, -1):
            guesses = continuation(tokens, n, self.count)
            if guesses:
                return chain(guesses, "lookup")
        return NOTHING


class BigramTable(TokenProposer):
    """Guesses that after each token comes the one that came most often after it in `answers` (token ids)."""

    def __init__(self, answers: Iterable[Sequence[int]], count: int = 3):
        if count < 1:
            raise CourseError("A bigram table guesses at least one token: give count >= 1.")
        followers: defaultdict[int, Counter[int]] = defaultdict(Counter)
        for answer in answers:
            for token, after in pairwise(answer):
                followers[token][after] += 1
        self.after = {token: counts.most_common(1)[0][0] for token, counts in followers.items()}
        self.count = count

    def guess(self, tokens: Sequence[int]) -> Proposal:
        guesses, here = [], tokens[-1]
        while len(guesses) < self.count and here in self.after:
            here = self.after[here]
            guesses.append(here)
        return chain(guesses, "bigram")
