"""Beam search over an engine that knows no beams: each beam is a request for one more token (notebook 11).

Graves, "Sequence Transduction with Recurrent Neural Networks", 2012. vLLM does it in this way, too: what beams have in
common is in the engine's shared blocks, and only the last tokens are read anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

Candidates = Sequence[tuple[int, float]]  # tokens and their log-probabilities, the likeliest first
NextTokens = Callable[[list[tuple[int, ...]]], Awaitable[list[Candidates]]]


@dataclass(frozen=True)
class Beam:
    """An answer so far, the sum of its tokens' log-probabilities, and whether it has come to its end."""

    tokens: tuple[int, ...] = ()
    log_prob: float = 0.0
    ended: bool = False

    def score(self, length_penalty: float) -> float:
        """The sum over the length to this power: 0 prefers short answers, 1 is the mean."""
        return self.log_prob / len(self.tokens) ** length_penalty

    def most(self, longest: int, length_penalty: float) -> float:
        """A bound of its score however it goes on: log-probabilities only add to the loss."""
        shortest = len(self.tokens) + 1
        return max(self.log_prob / length**length_penalty for length in (shortest, longest))


async def beam_search(
    next_tokens: NextTokens, width: int, longest: int, eos: Collection[int], length_penalty: float = 1.0
) -> list[Beam]:
    """The `width` answers with the best scores that a search finds which keeps so many at a time, the best one first.

    Args:
        next_tokens: gives for each of these answers so far the likeliest next tokens; at least `width` of them that
            are no end, and every end that is likelier than one of these.
        longest: tokens of an answer.
    """

    def best(beams: Sequence[Beam]) -> list[Beam]:
        return sorted(beams, key=lambda beam: beam.score(length_penalty), reverse=True)[:width]

    running, ended = [Beam()], []
    while running and len(running[0].tokens) < longest:
        found = await next_tokens([beam.tokens for beam in running])
        grown = [
            Beam((*beam.tokens, token), beam.log_prob + log_prob, token in eos)
            for beam, candidates in zip(running, found, strict=True)
            for token, log_prob in candidates
        ]
        ended = best([*ended, *(beam for beam in grown if beam.ended)])
        running = best([beam for beam in grown if not beam.ended])
        hope = max((beam.most(longest, length_penalty) for beam in running), default=float("-inf"))
        if len(ended) == width and hope <= ended[-1].score(length_penalty):
            return ended
    return best([*ended, *running])
