"""What a KV cache saves and what it costs, as tables, figures and sentences (notebook 00b)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import matplotlib.pyplot as plt
import torch
from torch import nn

from helpers.kernels.packed_linear import PackedLinear
from helpers.measuring import timing
from helpers.measuring.cost_model import kv_heads_of
from helpers.notebook import plots
from helpers.notebook.results import Results
from helpers.notebook.step_times import SUFFIX, note_speedup
from helpers.profiling.step_time import batch_step_seconds

WITH, WITHOUT = "with a cache", "without"
LIBRARYS, OURS = "library's", "ours"
Runs = Sequence[Mapping[str, tuple[list[int], list[float]]]]  # by arm, the tokens and the seconds of each step


def draw_answers(runs: Runs) -> None:
    """The time of each step, with and without a cache, the median over the runs."""
    ax = plt.subplots(figsize=(8, 3.4))[1]
    for name, marker in zip((WITH, WITHOUT), plots.MARKERS):
        by_step = [median(each) * 1e3 for each in zip(*(run[name][1] for run in runs))]
        ax.plot(range(1, len(by_step) + 1), by_step, marker=marker, markevery=max(1, len(by_step) // 8), label=name)
    ax.set(title="Without a cache every step is a prefill")
    ax.set(xlabel="step (count)", ylabel="time of the step (ms)", ylim=(0, None))
    ax.legend()


def read_answers(results: Results, runs: Runs, num_prompt_tokens: int) -> timing.Comparison:
    """Whether both arms write the same tokens, and how many times as long it takes without a cache; writes both."""
    same = sum(run[WITH][0] == run[WITHOUT][0] for run in runs)
    results.invariant("kv_cache.same_tokens_without_cache", same == len(runs), same, len(runs))
    totals = {name: [sum(run[name][1]) for run in runs] for name in (WITH, WITHOUT)}
    longer = note_speedup(results, "kv_cache.without_cache", timing.speedup(totals[WITHOUT], totals[WITH]))
    print(f"The same tokens both ways in {same} of {len(runs)} runs.", end=" ")
    print(f"{num_prompt_tokens} tokens in, {len(runs[0][WITHOUT][0])} out.")
    print(f"Without a cache the whole answer takes {longer.ratio:.2f} times as long.", end=" ")
    by_step = [median(each) for each in zip(*(run[WITHOUT][1] for run in runs))]
    print(f"There the last step took {by_step[-1] / by_step[0]:.2f} times\nas long as the first:", end=" ")
    print("it reads the answer, too. The longer the answer, the larger both numbers get.")
    return longer


def show_cache_bytes(configs: Mapping[str, object], bytes_per_token: Callable[[int, int, int, int], int]) -> None:
    """A line for each model: its heads, and what a token, a long text and many users take, two bytes a number."""
    print(f"{'model':22}{'heads':>6}{'KV heads':>10}{'bytes a token':>15}{'4,000 tokens':>15}", end="")
    print(f"{'32 users of 4,000':>19}")
    for name, config in configs.items():
        kv_heads, head_dim = kv_heads_of(config)
        each = bytes_per_token(config.num_hidden_layers, kv_heads, head_dim, 2)
        print(f"{name:22}{config.num_attention_heads:6}{kv_heads:10}{each:15,}", end="")
        print(f"{each * 4e3 / 1e6:12.0f} MB{each * 32 * 4e3 / 1e9:16.1f} GB")


def show_appending(makers: Mapping[str, Callable[[int], object]], lengths: Sequence[int], rounds: int) -> None:
    """What one more token costs in one layer, by the tokens held; a maker gives an empty cache for so many tokens and
    one more."""
    ax = plt.subplots(figsize=(8, 3.4))[1]
    times = {name: [_seconds_to_append(make, held, rounds) for held in lengths] for name, make in makers.items()}
    for (name, seconds), marker in zip(times.items(), plots.MARKERS):
        ax.plot(lengths, [each * 1e6 for each in seconds], marker=marker, label=name)
    ax.set(title="One more token, in one layer", xscale="log", yscale="log")
    ax.set(xlabel="tokens held (count)", ylabel="time to append (µs)")
    ax.set_xticks(lengths, list(map(str, lengths)))
    ax.set_xticks([], minor=True)
    ax.legend()
    for name, seconds in times.items():
        growth = seconds[-1] / seconds[0]
        print(f"{name}: with {lengths[-1]} tokens held {growth:.1f} times the time with {lengths[0]}")
    copied, in_place = (seconds[-1] for seconds in times.values())
    if copied > 3 * in_place:
        print(
            f"At {lengths[-1]} tokens copying takes {copied / in_place:.0f} times as long as writing in place:", end=" "
        )
        print("a copy grows with what is copied.")


def _seconds_to_append(make: Callable[[int], object], held: int, rounds: int) -> float:
    """Seconds that one more token takes in a cache that holds `held` tokens: eight KV heads of 128 numbers."""
    new, past = (torch.randn(2, 1, 8, n, 128) for n in (1, held))
    seconds = []
    for _ in range(rounds):
        cache = make(held)
        cache.update(*past, 0)
        began = time.perf_counter()
        cache.update(*new, 0)
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def beside(model: nn.Module) -> nn.Module:
    """A copy of the model that shares its weights, packed ones too: only the attention can be set anew."""
    shared = [*model.parameters(), *(m for m in model.modules() if isinstance(m, PackedLinear))]
    return copy.deepcopy(model, {id(each): each for each in shared})


def batch_steps(arms: Mapping[str, nn.Module], batch_size: int, rounds: int) -> dict[tuple[str, str], list[float]]:
    """Seconds of decode steps of so many sequences, by (arm, "with a mask" or "no mask"); prints the medians."""
    seconds = {}
    for mask, uneven in (("with a mask", True), ("no mask", False)):
        times = batch_step_seconds(arms, batch_size, rounds=rounds, uneven=uneven)
        seconds |= {(name, mask): each for name, each in times.items()}
    dtype = str(next(iter(arms.values())).dtype).removeprefix("torch.")
    listed = (f"{name} {mask} {median(each) * 1e3:.1f} ms" for (name, mask), each in seconds.items())
    print(f"{dtype}: {', '.join(listed)}")
    return seconds


def show_attention_gains(
    results: Results, steps: Mapping[str, Mapping[tuple[str, str], Sequence[float]]], shape: str, batch_size: int
) -> None:
    """Our attention against the library's, by dtype, with and without a mask: bars, sentences and metrics."""
    gains = {}
    for dtype, times in steps.items():
        for mask, ending in (("with a mask", ""), ("no mask", ".no_mask")):
            gain = timing.speedup(times[LIBRARYS, mask], times[OURS, mask])
            key = f"kv_cache.attention_speedup.batch_{batch_size}{SUFFIX[dtype]}{ending}"
            gains[dtype, mask] = note_speedup(results, key, gain)
            print(f"{f'{dtype}, {mask}':24} ours against the library's: {gain}")
    plots.bars_with_intervals(
        [", ".join(each) for each in gains],
        [gain.ratio for gain in gains.values()],
        [(gain.low, gain.high) for gain in gains.values()],
        title=f"A decode step of {batch_size} sequences, {shape}: own attention",
        value_label="speedup over the library's attention (x)",
    )
    masked = [gain for (_, mask), gain in gains.items() if mask == "with a mask"]
    if all(gain.real and gain.ratio > 1 for gain in masked):
        print(
            "Where a mask is needed, reading heads as they lie pays in both formats. Any batch of real users", end=" "
        )
        print("needs one:\ntheir texts differ in length.")
    else:
        print("Here the copies cost too little, or the noise is too large, to show a gain in both formats.")
