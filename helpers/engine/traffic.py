"""Requests as they come in, and what became of each: the same trace for every engine (notebook 05).

Arrivals are Poisson: users don't know of each other. Lengths of answers have a heavy tail (log-normal): most are short,
and a few are many times as long, which is what makes batches that wait for their longest answer idle. End-of-sequence
tokens are ignored, so that every engine does the same work.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from helpers.errors import CourseError


@dataclass(frozen=True)
class Request:
    """Seconds after the first one's arrival, the prompt's token ids, and how many tokens are to be written."""

    arrival: float
    prompt: Sequence[int]
    num_tokens: int


class Server(Protocol):
    """What answers requests, however it does."""

    def submit(self, number: int, request: Request) -> None:
        """A request has come; `number` stands for it from now on."""

    def step(self) -> Mapping[int, int]:
        """Go on until something has been written; how many tokens of which request."""

    @property
    def busy(self) -> bool:
        """Whether a request waits or runs."""

    def close(self) -> None:
        """Stop what it has started: threads of its own would keep a process alive."""


@dataclass(frozen=True)
class Replay:
    """For each request when it was sent and when each of its tokens came, in seconds after the first was sent."""

    arrivals: list[float]
    tokens: list[list[float]]

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.tokens))

    @property
    def seconds(self) -> float:
        """From the first arrival to the last token."""
        return max(times[-1] for times in self.tokens)

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / self.seconds

    @property
    def to_first_token(self) -> list[float]:
        """Seconds that each user waits until something comes."""
        return [times[0] - arrival for arrival, times in zip(self.arrivals, self.tokens, strict=True)]

    @property
    def latencies(self) -> list[float]:
        """Seconds until each answer is whole."""
        return [times[-1] - arrival for arrival, times in zip(self.arrivals, self.tokens, strict=True)]

    @property
    def between_tokens(self) -> list[float]:
        """Seconds between one token and the next of the same answer."""
        return [b - a for times in self.tokens for a, b in itertools.pairwise(times)]


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """p50, p90 and p99."""
    return tuple(float(p) for p in np.percentile(values, (50, 90, 99)))


def replay(
    server: Server,
    requests: Sequence[Request],
    users: int | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Replay:
    """Send each request when it is due, and write down when its tokens come. With `users` so many people ask one
    request after the other: the next is sent when an answer is whole, and arrivals don't count.

    Raises:
        CourseError: a request got fewer or more tokens than it wants.
    """
    coming, open_ones = deque(sorted(enumerate(requests), key=lambda pair: pair[1].arrival)), set()
    arrivals, tokens = [request.arrival for request in requests], [[] for _ in requests]
    began = clock()
    while coming or server.busy:
        while coming and (len(open_ones) < users if users else coming[0][1].arrival <= clock() - began):
            number, request = coming.popleft()
            if users:
                arrivals[number] = clock() - began
            server.submit(number, request)
            open_ones.add(number)
        if not server.busy:
            sleep(max(0.0, coming[0][1].arrival - (clock() - began)))
            continue
        written, now = server.step(), clock() - began
        for number, count in written.items():
            tokens[number] += [now] * count
            if len(tokens[number]) >= requests[number].num_tokens:
                open_ones.discard(number)
    for number, (times, request) in enumerate(zip(tokens, requests)):
        if len(times) != request.num_tokens:
            raise CourseError(
                f"Request {number} got {len(times)} tokens of {request.num_tokens}: this engine does other work than "
                "the trace asks for, and its times can't be compared."
            )
    return Replay(arrivals, tokens)


def poisson(count: int, per_second: float, draw: random.Random) -> list[float]:
    """Times at which `count` requests come, the first at 0."""
    times = [0.0]
    while len(times) < count:
        times.append(times[-1] + draw.expovariate(per_second))
    return times


def answer_lengths(
    count: int, draw: random.Random, middle: int = 24, spread: float = 1.0, most: int = 256
) -> list[int]:
    """Log-normal lengths of answers around `middle`, from 1 to `most` tokens."""
    return [min(most, max(1, round(draw.lognormvariate(math.log(middle), spread)))) for _ in range(count)]
