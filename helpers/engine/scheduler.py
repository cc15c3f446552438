"""Who reads what in the next step: the batch is decided anew each time.

Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", 2022: whoever is done leaves at
once, and the next one takes the place. Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with
Sarathi-Serve", 2024: a long prompt is read in chunks, so that those who are writing needn't wait for it.
"""

from __future__ import annotations

from collections import deque

from helpers.decoding.feed import Feed
from helpers.decoding.proposals import NOTHING
from helpers.decoding.sequence import Sequence
from helpers.engine.paged_cache import PagedCache
from helpers.errors import CourseError

Batch = list[tuple[Sequence, Feed]]


def divide(unread: list[int], budget: int) -> list[int]:
    """How many tokens of each prompt to read, of `budget` in all; `unread` tokens are left
    of each, the oldest prompt first. Half is the oldest one's, the shortest share the rest."""
    shares, left = [0] * len(unread), budget
    shortest = sorted(range(len(unread)), key=unread.__getitem__)
    turns = [(0, budget - budget // 2), *((prompt, budget) for prompt in shortest)]
    for prompt, most in turns if unread else []:
        more = min(unread[prompt] - shares[prompt], most, left)
        shares[prompt] += more
        left -= more
    return shares


class Scheduler:
    """First come, first served: `running` in the order of arrival, then `waiting`.

    A step reads at most `max_tokens` tokens: one of everybody who is writing, then guesses, then parts of prompts. Half
    of what is left for prompts is the oldest one's, so that it gets done; the shortest ones share the rest, so that
    nobody waits for a long one. When blocks run out, the last who came gives way, and reads everything again later.
    """

    divide = staticmethod(divide)

    def __init__(self, cache: PagedCache, max_tokens: int = 256, max_sequences: int = 16, share_prefixes: bool = True):
        if not 1 <= max_sequences <= max_tokens:
            raise CourseError("A step has room for one sequence at least, and for a token of each sequence.")
        self.cache, self.max_tokens, self.max_sequences = cache, max_tokens, max_sequences
        self.share_prefixes = share_prefixes
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0

    def add(self, sequence: Sequence) -> None:
        """At the end of the queue; CourseError at once for a request that all blocks together could not hold."""
        needed = self.cache.blocks_for(sequence.max_length)
        if needed > self.cache.num_blocks:
            raise CourseError(
                f"The request may become {sequence.max_length} tokens long, which takes {needed} blocks of "
                f"{self.cache.block_size}, and the cache has {self.cache.num_blocks}: ask for fewer new tokens, or "
                "give the cache more blocks."
            )
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """It is done, or nobody wants it any more."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
            if sequence.id in self.cache.lengths:
                self.cache.free(sequence.id)

    def schedule(self) -> Batch:
        """The next step; empty only if there is nothing to do."""
        self._admit()
        batch, shares, promised = [], self._shares(), 0
        for sequence in list(self.running):
            if sequence in self.running and shares[sequence.id]:  # it may have given way meanwhile
                if feed := self._feed(sequence, shares[sequence.id], promised):
                    batch.append((sequence, feed))
                    promised += self._blocks(sequence, feed)
        return batch

    def _admit(self) -> None:
        """Let the next ones in, as long as there is room for all that is known of them."""
        promised = 0
        while self.waiting and len(self.running) < self.max_sequences:
            sequence = self.waiting[0]
            if self.share_prefixes:
                sequence.cached = self.cache.share_prefix(sequence.id, sequence.known)
            promised += self.cache.missing(sequence.id, len(sequence.known))
            if promised > len(self.cache.pool.free):
                return self._forget(sequence)
            self.running.append(self.waiting.popleft())

    def _shares(self) -> dict[int, int]:
        """How many tokens each may read in this step, by its id."""
        shares = {sequence.id: 0 if sequence.prefilling else 1 for sequence in self.running}
        left = self.max_tokens - sum(shares.values())
        for sequence in self.running:
            guesses = len(sequence.proposal.tokens)
            if guesses <= left:
                shares[sequence.id] += guesses
                left -= guesses
        prompts = [sequence for sequence in self.running if sequence.prefilling]
        unread = [len(sequence.known) - sequence.cached for sequence in prompts]
        return shares | dict(zip((sequence.id for sequence in prompts), self.divide(unread, left)))

    def _feed(self, sequence: Sequence, share: int, promised: int) -> Feed | None:
        """What the sequence reads, if there are blocks for it beside those `promised` to others; guesses cost nobody
        his place."""
        if promised + self._blocks(sequence, sequence.feed(share)) > len(self.cache.pool.free):
            sequence.proposal = NOTHING
        feed = sequence.feed(share)
        while promised + self._blocks(sequence, feed) > len(self.cache.pool.free):
            last = self.running[-1]
            self._preempt(last)
            if last is sequence:
                return None
        return feed

    def _blocks(self, sequence: Sequence, feed: Feed) -> int:
        """Blocks that the feed takes beside those that the sequence has."""
        return self.cache.missing(sequence.id, sequence.cached + len(feed))

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.running.remove(sequence)
        self._forget(sequence)
        self.waiting.appendleft(sequence)

    def _forget(self, sequence: Sequence) -> None:
        """The cache loses the sequence: all that is known of it will be read again."""
        if sequence.id in self.cache.lengths:
            self.cache.free(sequence.id)
        sequence.preempt()
