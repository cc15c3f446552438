"""The course's engine as a server of a trace, and two that are worse by design: what continuous batching replaces."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from helpers.decoding.sequence import Sequence
from helpers.engine.engine import Engine
from helpers.engine.scheduler import Scheduler
from helpers.engine.traffic import Request, Server


class Occupancy(NamedTuple):
    """After a step: sequences that run, tokens that they hold, and tokens for which memory is set aside."""

    running: int
    held: int
    reserved: int


class Continuous(Server):
    """The engine. `occupancy` has an entry for each step, `spans` (first step, last step) of each request; all steps
    together have read `tokens_read` tokens."""

    def __init__(self, engine: Engine):
        self.engine, self.numbers, self.tokens_read = engine, {}, 0
        self.occupancy: list[Occupancy] = []
        self.spans: dict[int, tuple[int, int]] = {}

    def submit(self, number: int, request: Request) -> None:
        sequence = self.engine.add(request.prompt, max_new_tokens=request.num_tokens, eos=())
        self.numbers[sequence.id] = number

    @property
    def busy(self) -> bool:
        return self.engine.busy

    def step(self) -> Mapping[int, int]:
        written = {}
        for sequence, feed, verified in self.engine.step():
            self.tokens_read += len(feed)
            number = self.numbers[sequence.id]
            written[number] = len(verified.emitted)
            first, _ = self.spans.get(number, (len(self.occupancy), 0))
            self.spans[number] = first, len(self.occupancy)
        cache = self.engine.cache
        used = (cache.num_blocks - len(cache.pool.free)) * cache.block_size
        shared = sum(users - 1 for users in cache.pool.users if users > 1) * cache.block_size
        held = sum(cache.lengths.values()) - shared
        self.occupancy.append(Occupancy(len(self.engine.scheduler.running), held, used))
        return written


class Static(Server):
    """A batch of `batch_size` requests begins when the one before is done, and each of its sequences is computed until
    the longest one ends; only then do the answers go out. (What is computed past an answer's end is thrown away.)"""

    def __init__(self, engine: Engine, batch_size: int):
        self.engine, self.batch_size = engine, batch_size
        self.waiting: deque[tuple[int, Request]] = deque()
        self.batch: list[tuple[int, Request, Sequence]] = []
        self.occupancy: list[Occupancy] = []
        self.spans: dict[int, tuple[int, int]] = {}

    def submit(self, number: int, request: Request) -> None:
        self.waiting.append((number, request))

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.batch)

    def step(self) -> Mapping[int, int]:
        if not self.batch:
            chosen = [self.waiting.popleft() for _ in range(min(self.batch_size, len(self.waiting)))]
            longest = max(request.num_tokens for _, request in chosen)
            self.batch = [
                (number, request, self.engine.add(request.prompt, max_new_tokens=longest, eos=()))
                for number, request in chosen
            ]
        self.engine.step()
        now, rows = len(self.occupancy), len(self.batch)
        longest_prompt = max(len(request.prompt) for _, request, _ in self.batch)
        longest_answer = max(request.num_tokens for _, request, _ in self.batch)
        held = sum(
            len(request.prompt) + min(len(sequence.written), request.num_tokens) for _, request, sequence in self.batch
        )
        self.occupancy.append(Occupancy(rows, held, rows * (longest_prompt + longest_answer)))
        for number, request, sequence in self.batch:
            first, last = self.spans.get(number, (now, now))
            self.spans[number] = first, now if len(sequence.written) <= request.num_tokens else last
        if self.engine.busy:
            return {}
        done, self.batch = self.batch, []
        return {number: request.num_tokens for number, request, _ in done}


class WholePrompts(Scheduler):
    """Those who write, then the oldest prompt wholly, then the next, as far as the budget goes: how engines began."""

    def _shares(self) -> dict[int, int]:
        left, shares = self.max_tokens, {}
        for sequence in sorted(self.running, key=lambda sequence: sequence.prefilling):
            unread = len(sequence.known) - sequence.cached + len(sequence.proposal.tokens)
            left = left if unread <= left else 0  # nobody passes one who has to wait
            shares[sequence.id] = min(unread, left)
            left -= shares[sequence.id]
        return shares


class OldestFirst(Scheduler):
    """Chunks, and the oldest prompt takes as much of the budget as it needs."""

    @staticmethod
    def divide(unread: list[int], budget: int) -> list[int]:
        shares: list[int] = []
        for tokens in unread:
            shares.append(min(tokens, budget - sum(shares)))
        return shares


class RecomputingScheduler(Scheduler):
    """Whenever one comes in, everybody's keys and values are computed anew, as a batch that is built afresh does; what
    NeuronX's rolling batch did before it could insert a new row beside the others."""

    def _admit(self) -> None:
        before = list(self.running)
        super()._admit()
        if len(self.running) > len(before):
            for sequence in before:
                self._forget(sequence)
