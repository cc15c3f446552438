"""Time and memory, measured so that one doesn't fool oneself: warmed up, interleaved, with an interval (notebook 00).

Machines are noisy, and the noise drifts: two programs measured one after the other differ even when they are the same.
So A and B take turns over the same prompts, and the ratio comes with a bootstrap interval (Efron 1979) over them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

import numpy as np
import torch

from helpers.errors import CourseError

Arm = TypeVar("Arm")


@dataclass
class Timed:
    """One arm of a comparison: for each item the seconds of its fastest round, and what the arm returned."""

    seconds: list[float] = field(default_factory=list)
    results: list = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """How many times faster: `ratio` with its 95 % interval (low, high) over `n` items, in `runs` processes."""

    ratio: float
    low: float
    high: float
    n: int
    runs: int = 1

    @property
    def real(self) -> bool:
        """Whether the interval leaves 1 out: only then is there a difference to speak of."""
        return not self.low <= 1.0 <= self.high

    def __str__(self) -> str:
        runs = f", {self.runs} runs" if self.runs > 1 else ""
        ratio = f"{self.ratio:.2f}x ({self.low:.2f} to {self.high:.2f}, n = {self.n}{runs})"
        if not self.real:
            return f"no difference shown: {ratio} holds 1"
        return f"{ratio}: {'faster' if self.ratio > 1 else 'slower'}"


def synchronize(device: str | torch.device = "cpu") -> None:
    """Wait until a GPU has done what it was asked: its calls return before the work is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(
    arms: Mapping[Arm, Callable[[], object]],
    rounds: int,
    *,
    warmup: int = 0,
    device: str | torch.device = "cpu",
    before: Callable[[Arm], object] = lambda arm: None,
    after: Callable[[Arm, object], object] = lambda arm, result: None,
    reverse: bool = True,
) -> dict[Arm, list[float]]:
    """Call every arm once a round, in an order that reverses each round; returns each arm's seconds, one a round.

    With `reverse=False` the order stays: where the arms are a model's layers, none should follow itself, or its weights
    would still be in the processor's cache. `warmup` rounds come first and aren't counted. `before(arm)` and
    `after(arm, result)` run around every call, those of the warm-up included, off the clock: to empty a processor's
    cache, to crop a KV cache back, to keep a result. An arm's key may be a tuple: steps of several models and numbers
    of tokens take turns as

        arms = {(name, n): partial(decoders[name].step, tokens[:n], caches[name]) for name in models for n in counts}
        seconds = take_turns(arms, rounds, warmup=2, device=device, after=lambda arm, _: caches[arm[0]].crop(context))
    """
    if not arms or rounds < 1:
        raise CourseError("There is nothing to time: give at least one arm and one round.")
    seconds: dict[Arm, list[float]] = {arm: [] for arm in arms}
    order = list(arms)
    for turn in range(-warmup, rounds):
        for arm in order:
            before(arm)
            synchronize(device)
            began = time.perf_counter()
            result = arms[arm]()
            synchronize(device)
            elapsed = time.perf_counter() - began
            after(arm, result)
            del result  # or its memory would be missing at the next call
            if turn >= 0:
                seconds[arm].append(elapsed)
        if reverse:
            order.reverse()
    return seconds


def interleave(
    arms: Mapping[str, Callable], items: Sequence, *, rounds: int = 1, warmup: int = 2, device: str = "cpu"
) -> dict[str, Timed]:
    """Call every arm on every item, in turns whose order reverses each time; the first `warmup` items come twice.

    An arm is called with the item. Of several rounds the fastest counts: noise only ever adds.
    """
    if not arms or not items:
        raise CourseError("interleave needs at least one arm and one item to call it with.")
    for item in items[:warmup]:
        for arm in arms.values():
            arm(item)
    turns = {name: iter([item for item in items for _ in range(rounds)]) for name in arms}
    results: dict[str, list] = {name: [] for name in arms}
    seconds = take_turns(
        {name: lambda name=name: arms[name](next(turns[name])) for name in arms},
        rounds * len(items),
        device=device,
        after=lambda name, result: results[name].append(result),
    )

    def fastest(name: str) -> list[float]:
        return [min(seconds[name][i : i + rounds]) for i in range(0, len(seconds[name]), rounds)]

    return {name: Timed(fastest(name), results[name][::rounds]) for name in arms}


def speedup(
    base: Sequence[float], fast: Sequence[float], *, of: Callable = np.sum, resamples: int = 2000, seed: int = 0
) -> Comparison:
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


def speedup_over_runs(
    base: Sequence[Sequence[float]], fast: Sequence[Sequence[float]], *, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """As `speedup`, for the same items timed in several runs: processes drift, and an interval over items hides that.

    The bootstrap draws runs and, for all of them alike, items. The interval is widened where a run's own ratio lies
    outside of it: it covers every run.

    Args:
        base, fast: seconds (runs, items).
    """
    shapes = {tuple(len(run) for run in side) for side in (base, fast)}
    if len(shapes) != 1 or not len(base) or len(set(*shapes)) != 1:
        raise CourseError("Several runs are compared over the same items: give each run's seconds of all items.")
    if len(base) == 1:
        return speedup(base[0], fast[0], resamples=resamples, seed=seed)
    a, b = np.asarray(base, float), np.asarray(fast, float)
    rng, (runs, n) = np.random.default_rng(seed), a.shape
    if n < 2:
        raise CourseError("A comparison needs two items at least.")
    drawn = rng.integers(0, runs, (resamples, runs, 1)), rng.integers(0, n, (resamples, 1, n))
    low, high = np.percentile(a[drawn].sum((1, 2)) / b[drawn].sum((1, 2)), (2.5, 97.5))
    own = a.sum(1) / b.sum(1)
    ratio = float(a.sum() / b.sum())
    return Comparison(ratio, float(min(low, own.min())), float(max(high, own.max())), n, runs)


def seconds_of(
    call: Callable[[], object], *, repeats: int = 20, warmup: int = 3, device: str | torch.device = "cpu"
) -> float:
    """The median seconds of one call."""
    return median(take_turns({"": call}, repeats, warmup=warmup, device=device)[""])
