"""Time and memory, measured so that one doesn't fool oneself: warmed up, interleaved, with an interval (notebook 00).

Machines are noisy, and the noise drifts: two programs measured one after the other differ even when they are the same.
So A and B take turns over the same prompts, and the ratio comes with a bootstrap interval (Efron 1979) over them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch

from helpers.errors import CourseError
from helpers.results import peak_memory_gib


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


def bandwidth(megabytes: int = 512, repeats: int = 15, device: str = "cpu") -> float:
    """Bytes per second at which all threads together read memory in order (a sum over far more than any cache)."""
    data = torch.ones(megabytes * 2**20 // 4, device=device)
    return data.nbytes / seconds_of(lambda: data.sum(), repeats=repeats, device=device)


def matmul_rate(dtype: torch.dtype = torch.float32, size: int | None = None, repeats: int = 15,
                device: str = "cpu") -> float:  # fmt: skip
    """Floating-point operations per second of one large matrix product (2 x size^3 of them)."""
    size = size or (1024 if torch.device(device).type == "cpu" else 8192)  # long enough to hide the launch
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b, repeats=repeats, device=device)


@torch.inference_mode()
def layer_seconds(arms: Mapping[str, Sequence[torch.nn.Module]], rows: Sequence[int],
                  turns: int = 7) -> dict[str, dict[int, float]]:  # fmt: skip
    """Seconds of one linear layer of each arm for so many rows of input, the median of `turns`; the arms take turns.

    An arm's layers are alike, and together larger than any cache: called one after the other, each weight comes from
    memory, as it does in a model's step.
    """
    found: dict[str, dict[int, list[float]]] = {name: {n: [] for n in rows} for name in arms}
    order = list(arms)
    for turn in range(turns + 1):
        for n, name in itertools.product(rows, order):
            weight = arms[name][0].weight
            x = torch.randn(n, weight.shape[1], device=weight.device).to(weight.dtype)
            synchronize(weight.device)
            began = time.perf_counter()
            for layer in arms[name]:
                layer(x)
            synchronize(weight.device)
            if turn >= 1:
                found[name][n].append((time.perf_counter() - began) / len(arms[name]))
        order.reverse()
    return {name: {n: median(seconds) for n, seconds in by_rows.items()} for name, by_rows in found.items()}


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all weights, shared ones counted once."""
    return sum(p.nbytes for p in model.parameters())


def peak_memory(device: str = "cpu") -> dict[str, float]:
    """The most memory held so far, in GiB: by this process, and by torch on a GPU."""
    found = {"process": peak_memory_gib()}
    if torch.device(device).type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found


def decode_tokens_per_second(steps: Sequence) -> float:
    """Tokens per second after the prefill: what the decode steps emitted over the seconds that they took; 0 without
    decode steps."""
    decode = [step for step in steps if step.kind == "decode"]
    if not decode:
        return 0.0
    return sum(len(step.emitted) for step in decode) / sum(step.seconds for step in decode)


@dataclass(frozen=True)
class Latency:
    """What a user feels, in milliseconds: time to first token (median), and between tokens; and tokens per second."""

    ttft_ms: float
    itl_mean_ms: float
    itl_p50_ms: float
    itl_p90_ms: float
    itl_p99_ms: float
    tokens_per_second: float
    n: int


def latency(completions: Sequence) -> Latency:
    """Latency over recorded Completions. A step that emits several tokens brings them at once: gaps of 0 after the
    first, as a user of a stream would see."""
    gaps = [g for c in completions for s in c.steps[1:] for g in (s.seconds, *[0.0] * (len(s.emitted) - 1))]
    if not gaps:
        raise CourseError("No answer has a second token: there is nothing between tokens to measure.")
    p50, p90, p99 = np.percentile(gaps, (50, 90, 99)) * 1e3
    first = median(c.seconds_to_first_token for c in completions) * 1e3
    tokens, seconds = sum(len(c.token_ids) for c in completions), sum(c.seconds for c in completions)
    return Latency(first, float(np.mean(gaps)) * 1e3, p50, p90, p99, tokens / seconds, len(completions))
