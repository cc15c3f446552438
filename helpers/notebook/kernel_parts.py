"""What kernels save, as tables and sentences: variants of a linear, operations, parts of the fused step, C++ (00c)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from torch import nn

from helpers.errors import CourseError
from helpers.kernels.native.native_llama import NativeLlama
from helpers.measuring.timing import Comparison, speedup
from helpers.notebook import plots
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.notebook.step_times import SUFFIX, note_speedup
from helpers.profiling.model_steps import Steps
from helpers.profiling.same_bits import Differences

MOST = 8  # operations that a table lists by name
LABELS = {"fused": "fused, in PyTorch", "native": "in C++"}  # of ways to compute a step, where both are shown
Each = TypeVar("Each")


def named(by_way: Mapping[str, Each]) -> dict[str, Each]:
    """What there is by the way to compute a step, by the way's label."""
    return {LABELS.get(way, way): each for way, each in by_way.items()}


def show_ways(arms: Mapping[str, nn.Module]) -> None:
    """The ways to compute a step that there are here, and the reason where there is none in C++."""
    print(f"ways to compute a step here: {'; '.join(named(arms))}")
    if "native" not in arms:
        try:
            NativeLlama(arms["transformers"])
        except CourseError as error:
            say(str(error))


def show_layer(seconds: Mapping[str, Mapping[int, float]], weight_bytes: int, bandwidth: float) -> None:
    """Microseconds of one linear layer by the number of tokens, and the share of the bandwidth with one token."""
    counts = list(next(iter(seconds.values())))
    print(f"{'µs a layer, tokens:':22}" + "".join(f"{n:7}" for n in counts) + "   of the bandwidth, 1 token")
    shares = {name: weight_bytes / times[1] / bandwidth for name, times in seconds.items()}
    for name, times in seconds.items():
        print(f"{name:22}" + "".join(f"{times[n] * 1e6:7.0f}" for n in counts) + f"{shares[name]:20.0%}")
    (before, after) = list(shares.values())[:2]
    if after > 1.1 * before:
        say("The same product of the same weights: they lie in the order in which the code reads them.")
    else:
        print("On this machine the library's kernel reads a weight as fast as a packed copy is read.")


def show_variants(measured: Mapping[int, Mapping[tuple, Mapping[str, float]]], shape: tuple[int, int]) -> None:
    """For each number of tokens, microseconds of each variant of the layer (out, in), the fastest named."""
    print(f"a product of {shape[1]} numbers in and {shape[0]} out, µs:")
    for n, by_shape in measured.items():
        times = by_shape[shape]
        listed = ", ".join(f"{variant} {seconds * 1e6:.0f}" for variant, seconds in times.items())
        print(f"  {n:2} token{'s' if n > 1 else ' '}: {listed}; the fastest is {min(times, key=times.get)}")


def show_operations(results: Results, counts: Mapping[str, Counter], layers: int) -> None:
    """A column for each way, a line for the most frequent operations and one for all; writes the totals."""
    names = [name for name, _ in sum(counts.values(), Counter()).most_common(MOST)]
    print(f"{'operations a step':34}" + "".join(f"{way:>14}" for way in counts))
    for name in names:
        print(f"  {name:32}" + "".join(f"{counter[name]:14}" for counter in counts.values()))
    totals = {way: counter.total() for way, counter in counts.items()}
    print(f"{'all':34}" + "".join(f"{total:14}" for total in totals.values()))
    print(f"{'a layer':34}" + "".join(f"{total / layers:14.1f}" for total in totals.values()))
    for way, total in totals.items():
        results.metric(f"kernels.operations.{way}", total, "operations")
    if "new_empty" in names:
        say("(A product by the course's own C++ counts as the `new_empty` that it is written into.)")
    first, last = totals["transformers"], min(totals.values())
    print(f"The same numbers come out, of {last / first:.0%} of the operations." if last < first else "No fewer.")


def show_parts(parts: Mapping[str, tuple[float, float]], layers: int) -> None:
    """Microseconds a layer of each part, both ways, and what that is for the whole step."""
    print(f"{'µs a layer':26}{'own':>8}{'fused':>8}{'saved in a step':>22}")
    for part, (own, fused) in parts.items():
        print(f"{part:26}{own * 1e6:8.0f}{fused * 1e6:8.0f}{(own - fused) * layers * 1e3:19.1f} ms")
    saved = {part: own - fused for part, (own, fused) in parts.items()}
    best = max(saved, key=saved.get)
    print(f"Most is saved by {best!r}.", end=" ")
    worse = [part for part, seconds in saved.items() if seconds < 0]
    print(f"Not faster here: {', '.join(worse)}." if worse else "Each part is faster by itself.")


def show_same_bits(results: Results, found: Mapping[str, Mapping[str, Sequence[Differences]]]) -> None:
    """For each way to compute a step and to read a text, how far the last logits are from those read one by one; writes
    the invariant of the step in C++."""
    print(f"{'last logits, against one by one':36}{'numbers that differ':>24}{'largest difference':>22}")
    same = {}
    for way, by_reading in named(found).items():
        for reading, differences in by_reading.items():
            numbers, of = (sum(getattr(each, name) for each in differences) for name in ("numbers", "of"))
            largest = max(each.largest for each in differences)
            print(f"{way:18}{reading:18}{f'{numbers:,} of {of:,}':>24}{largest:22.4g}")
        readings = [each.numbers == 0 for differences in by_reading.values() for each in differences]
        same[way] = sum(readings), len(readings)
    for way, (count, of) in same.items():
        print(f"{way}: {count} of {of} readings have the same bits as one by one.")
    if "native" in found:
        count, of = same[LABELS["native"]]
        results.invariant("kernels.same_bits", count == of, count, of)


def draw_shares(by_dtype: Mapping[str, Mapping[str, Steps]], bandwidth: float) -> None:
    """A bar for each dtype and way: the weights' bytes over the step's time, as a share of the bandwidth."""
    shares = {
        f"{way}, {dtype}": one.share_of(bandwidth)
        for dtype, steps in by_dtype.items()
        for way, one in named(steps).items()
    }
    plots.bars_with_intervals(
        list(shares),
        list(shares.values()),
        title="How near a step of one token comes to the memory's bandwidth",
        value_label="weight bytes over step time (share of the bandwidth)",
    )
    best = max(shares, key=shares.get)
    near = shares[best] > 0.9
    rest = "Now only fewer bytes make a step much faster." if near else "In the rest of the time memory waits."
    say(f"The best is {best}: {shares[best]:.0%} of the bandwidth.", rest)
    fastest = {dtype: min(steps.values(), key=Steps.median) for dtype, steps in by_dtype.items()}
    if {"float32", "bfloat16"} <= fastest.keys():
        whole, half = fastest["float32"], fastest["bfloat16"]
        if half.share_of(bandwidth) < 0.9 * whole.share_of(bandwidth):
            say(
                "bfloat16 has half the bytes to read, and what is not reading is not halved, so its share is smaller.",
                f"Its step still takes {half.median() / whole.median():.0%} of float32's time.",
                "The smaller the weights, the more overhead counts.",
            )


def note_gains(results: Results, steps: Mapping[str, Steps]) -> Comparison:
    """Write and print how many times as fast as transformers' each other way makes a step of one token, in one dtype.
    The last way is the course's fastest step: its gain is written as that, too, and returned."""
    base = steps["transformers"]
    suffix = SUFFIX[base.dtype]
    for way, one in steps.items():
        if one is not base:
            gain = speedup(base.seconds[1], one.seconds[1], of=np.median)
            note_speedup(results, f"kernels.step_speedup.{way}{suffix}", gain)
            print(f"{base.dtype:9} {LABELS.get(way, way):18} against transformers: {gain}")
    return note_speedup(results, f"kernels.step_speedup.fastest{suffix}", gain)
