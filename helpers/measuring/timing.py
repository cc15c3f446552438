"""Time and memory, measured so that one doesn't fool oneself: warmed up, interleaved, with an interval (notebook 00).

Machines are noisy, and the noise drifts: two programs measured one after the other differ even when they are the same.
So A and B take turns over the same prompts, and the ratio comes with a bootstrap interval (Efron 1979) over them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch

from helpers.errors import CourseError


@dataclass
class Timed:
    """One arm of a comparison: for each item the seconds of its fastest round, and what the arm returned."""

    seconds: list[float] = field(default_factory=list)
    results: list = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """How many times faster: `ratio` with its 95 % interval (low, high) over `n` items."""

    ratio: float
    low: float
    high: float
    n: int

    @property
    def real(self) -> bool:
        """Whether the interval leaves 1 out: only then is there a difference to speak of."""
        return not self.low <= 1.0 <= self.high

    def __str__(self) -> str:
        told = f"{self.ratio:.2f}x ({self.low:.2f} to {self.high:.2f}, n = {self.n})"
        if not self.real:
            return f"no difference shown: {told} holds 1"
        return f"{told}: {'faster' if self.ratio > 1 else 'slower'}"


def synchronize(device: str | torch.device = "cpu") -> None:
    """Wait until a GPU has done what it was asked: its calls return before the work is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def interleave(arms: Mapping[str, Callable], items: Sequence, *, rounds: int = 1, warmup: int = 2,
               device: str = "cpu") -> dict[str, Timed]:  # fmt: skip
    """Call every arm on every item, in turns whose order reverses each time; the first `warmup` items come twice.

    An arm is called with the item. Of several rounds the fastest counts: noise only ever adds.
    """
    if not arms or not items:
        raise CourseError("interleave needs at least one arm and one item to call it with.")
    for item in items[:warmup]:
        for arm in arms.values():
            arm(item)
    timed = {name: Timed() for name in arms}
    order = list(arms)
    for item in items:
        best: dict[str, float] = {}
        for turn in range(rounds):
            for name in order:
                synchronize(device)
                began = time.perf_counter()
                result = arms[name](item)
                synchronize(device)
                took = time.perf_counter() - began
                best[name] = min(took, best.get(name, took))
                if turn == 0:
                    timed[name].results.append(result)
            order.reverse()
        for name, took in best.items():
            timed[name].seconds.append(took)
    return timed


def speedup(base: Sequence[float], fast: Sequence[float], *, of: Callable = np.sum, resamples: int = 2000,
            seed: int = 0) -> Comparison:  # fmt: skip
    """Total seconds of `base` over those of `fast`, item by item the same work, with a bootstrap over the items.

    For rounds of one and the same work, `of=np.median` compares the medians.
    """
    if len(base) != len(fast) or len(base) < 2:
        raise CourseError(
            f"A comparison needs the same items on both sides, two at least, not {len(base)}, {len(fast)}."
        )
    a, b = np.asarray(base, float), np.asarray(fast, float)
    picks = np.random.default_rng(seed).integers(0, len(a), (resamples, len(a)))
    low, high = np.percentile(of(a[picks], axis=1) / of(b[picks], axis=1), (2.5, 97.5))
    return Comparison(float(of(a) / of(b)), float(low), float(high), len(a))


def seconds_of(call: Callable[[], object], *, repeats: int = 20, warmup: int = 3, device: str = "cpu") -> float:
    """The median seconds of one call."""
    for _ in range(warmup):
        call()
    found = []
    for _ in range(repeats):
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        found.append(time.perf_counter() - began)
    return median(found)
