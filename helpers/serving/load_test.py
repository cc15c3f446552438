"""Requests that come whether the server is ready or not, and what became of them (notebook 11).

Open loop: each is sent when it is due, by a Poisson process, so that a slow server gets no fewer. Figures are named as
AIPerf names them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import numpy as np

from helpers.engine.traffic import poisson
from helpers.errors import CourseError
from helpers.serving.client import TIMEOUT
from helpers.serving.lines import cut, event_of

NOTHING = "No request was answered: there is nothing to count. Is the server there?"
STATISTICS = ("avg", "p50", "p90", "p99")
Pieces = Callable[[dict], str | None]  # a token's text in an event of a stream, or None


@dataclass(frozen=True)
class Sample:
    """One request: when it was due, when each piece of its answer came (seconds), its status, its text, and how many
    tokens the server counted; where it counts none a piece is a token."""

    due: float
    pieces: tuple[float, ...]
    status: int
    text: str = ""
    counted: int | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.pieces) if self.counted is None else self.counted

    @property
    def ok(self) -> bool:
        return self.status == 200 and bool(self.pieces)

    @property
    def time_to_first_token(self) -> float:
        return self.pieces[0] - self.due

    @property
    def inter_token_latency(self) -> float:
        """The mean time between its tokens; NaN for a single one."""
        return (self.pieces[-1] - self.pieces[0]) / (self.num_tokens - 1) if self.num_tokens > 1 else float("nan")

    @property
    def request_latency(self) -> float:
        return self.pieces[-1] - self.due


@dataclass(frozen=True)
class Load:
    """What a load test found, of all requests."""

    samples: list[Sample]

    @property
    def done(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.ok]

    @property
    def seconds(self) -> float:
        """From the first request to the last token; CourseError where nothing was answered."""
        if not self.done:
            refused = ", ".join(sorted({str(sample.status) for sample in self.samples if sample.status}))
            raise CourseError(f"All requests were refused, with status {refused}." if refused else NOTHING)
        return max(sample.pieces[-1] for sample in self.done) - min(sample.due for sample in self.samples)

    @property
    def capacity(self) -> float:
        """Requests per second of a closed loop, from the first answer to the last request that is sent: until then
        nobody's place is empty. CourseError where all were sent at once."""
        ends, last = sorted(sample.pieces[-1] for sample in self.done), max(sample.due for sample in self.samples)
        if not ends or last <= ends[0]:
            raise CourseError("A capacity needs more requests than are asked at a time, twice as many at least.")
        return sum(ends[0] < end <= last for end in ends) / (last - ends[0])

    @property
    def request_throughput(self) -> float:
        """Requests per second that were answered."""
        return len(self.done) / self.seconds

    @property
    def output_token_throughput(self) -> float:
        """Tokens per second of all answers."""
        return sum(sample.num_tokens for sample in self.done) / self.seconds

    def statistics(self, what: str) -> dict[str, float]:
        """avg, p50, p90 and p99 of time_to_first_token, inter_token_latency or request_latency, in seconds."""
        values = [value for sample in self.done if (value := getattr(sample, what)) == value]
        if not self.done:
            raise CourseError(NOTHING)
        if not values:  # answers of a token have no time between tokens
            return dict.fromkeys(STATISTICS, float("nan"))
        percentiles = np.percentile(values, (50, 90, 99))
        return dict(zip(STATISTICS, map(float, (np.mean(values), *percentiles)), strict=True))


def tgi_piece(event: dict) -> str | None:
    """A token's text in an event of TGI's or the container's stream; ValueError where it tells of a failure."""
    if event.get("error") or (event.get("details") or {}).get("finish_reason") == "error":
        raise ValueError("the answer failed in the middle")
    return event["token"]["text"] if event.get("token") else None


def openai_piece(event: dict) -> str | None:
    """A token's text in a chunk of OpenAI's completions or chat. A chunk that only begins, ends or counts has none."""
    [choice] = event["choices"] or [{}]
    text = choice.get("text", (choice.get("delta") or {}).get("content"))
    only = choice.get("finish_reason") or (choice.get("delta") or {}).get("role") or not choice
    return None if text is None or (not text and only) else text


def offer(
    url: str, bodies: Sequence[dict], per_second: float, piece: Pieces, *, seed: int = 0, in_flight: int | None = None
) -> Load:
    """Send the bodies to an address that streams, `per_second` of them on average. With `in_flight` so many at a time
    instead, the next when one is done (closed loop: its latencies leave out the queue that it never makes)."""
    if not bodies:
        raise CourseError("A load test needs one request at least.")
    loop = asyncio.new_event_loop()
    try:
        with ThreadPoolExecutor(1) as pool:  # a notebook's own thread runs an event loop already
            task = loop.create_task(_offer(url, bodies, per_second, piece, seed, in_flight))
            try:
                return pool.submit(loop.run_until_complete, task).result()
            except BaseException:  # an interrupt: nothing more is sent
                loop.call_soon_threadsafe(task.cancel)
                raise
    finally:
        loop.close()


async def _offer(
    url: str, bodies: Sequence[dict], per_second: float, piece: Pieces, seed: int, in_flight: int | None
) -> Load:
    gate = asyncio.Semaphore(in_flight) if in_flight else None
    times = [0.0] * len(bodies) if in_flight else arrivals(len(bodies), per_second, seed)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=TIMEOUT, limits=limits) as client:
        began = time.perf_counter()

        async def one(body: dict, due: float) -> Sample:
            await asyncio.sleep(max(0.0, due - (time.perf_counter() - began)))
            if gate is None:
                return await _send(client, url, body, due, began, piece)
            async with gate:
                return await _send(client, url, body, time.perf_counter() - began, began, piece)

        return Load(list(await asyncio.gather(*(one(*pair) for pair in zip(bodies, times, strict=True)))))


def arrivals(count: int, per_second: float, seed: int) -> list[float]:
    """When requests are due: at random, and `per_second` of them on average exactly. (A few dozen drawn as they come
    can be a fifth off, and 75 % of a server's capacity would be another share.)"""
    drawn = poisson(count, per_second, random.Random(seed))
    stretch = (count - 1) / per_second / drawn[-1] if count > 1 else 1.0
    return [each * stretch for each in drawn]


async def _send(client: httpx.AsyncClient, url: str, body: dict, due: float, began: float, piece: Pieces) -> Sample:
    for last in (False, True):
        times, text, counted = [], "", None
        try:
            async with client.stream("POST", url, json=body) as response:
                if response.status_code != 200:
                    await response.aread()
                    return Sample(due, (), response.status_code)
                async for event in _events(response):
                    counted = (event.get("usage") or {}).get("completion_tokens", counted)
                    if (new := piece(event)) is not None:
                        times.append(time.perf_counter() - began)
                        text += new
            return Sample(due, tuple(times), 200, text, counted)
        except httpx.RemoteProtocolError:
            if last or times:
                break
            # The server has closed a connection that was kept, as it may: llama.cpp's does after some requests.
        except (httpx.HTTPError, ValueError, KeyError):  # it broke off, or tells of an error in the middle
            break
    return Sample(due, (), 0)


async def _events(response: httpx.Response) -> AsyncIterator[dict]:
    """As `events_of`: bytes are cut at line feeds alone, since texts hold other ends of lines."""
    rest = b""
    async for piece in response.aiter_bytes():
        whole, rest = cut(rest, piece)
        for line in whole:
            if (event := event_of(line)) is not None:
                yield event
    if (event := event_of(rest)) is not None:
        yield event
