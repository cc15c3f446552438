"""Heads over ranks, messages and their line, and devices that aren't here (notebook 06)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from helpers.notebook import plots
from helpers.parallel.heads import shard_heads
from helpers.parallel.layouts import Device, Layout, Served, layouts
from helpers.parallel.links import Link

LOOKS = {"replicas": ("-", "o"), "tensor": ("--", "s"), "tensor in a node": ("-.", "D"), "pipeline": (":", "^")}


def draw_heads(heads: int, kv_heads: int, ranks: Sequence[int]) -> None:
    """For each number of ranks: which rank computes each head, and the key-value heads that it keeps for them."""
    _, axes = plt.subplots(len(ranks), 1, figsize=(9, 1.3 * len(ranks)), sharex=True, squeeze=False)
    group = heads // kv_heads
    for ax, count in zip(axes[:, 0], ranks, strict=True):
        shards = shard_heads(heads, kv_heads, count)
        for rank, shard in enumerate(shards):
            color = plots.COLORS[rank % len(plots.COLORS)]
            for head in shard.heads:
                ax.barh(1, 0.96, left=head, color=color, height=0.8)
                ax.text(head + 0.48, 1, f"q{head}", ha="center", va="center", fontsize=8, color="white")
            for head in shard.kv_heads:
                mine = [q for q in shard.heads if q // group == head]
                ax.barh(0, len(mine) - 0.04, left=mine[0], color=color, height=0.8, alpha=0.6)
                ax.text(mine[0] + len(mine) / 2, 0, f"kv{head}", ha="center", va="center", fontsize=8)
        kept = sum(len(shard.kv_heads) for shard in shards)
        ax.set(
            title=f"{count} ranks keep {kept} key-value heads in all", yticks=[0, 1], yticklabels=["keys", "queries"]
        )
        ax.grid(visible=False)
    axes[-1, 0].set_xlabel("head (number)")


def draw_messages(times: Sequence[tuple[int, int, float]], link: Link) -> None:
    """All-reduces as they were timed, and the fitted line: flat while latency counts, rising when bytes do."""
    _, ax = plt.subplots(figsize=(7, 3.4))
    sizes = [size for size, _, _ in times]
    ax.plot(sizes, [1e3 * t for _, _, t in times], color=plots.COLORS[0], marker="o", linestyle="", label="measured")
    fitted = [1e3 * link.all_reduce(size, ranks) for size, ranks, _ in times]
    ax.plot(sizes, fitted, color=plots.COLORS[1], linestyle="--", marker="", label="latency and bandwidth")
    ax.set(title="What an all-reduce takes", xlabel="data (bytes)", ylabel="time (ms)", xscale="log", yscale="log")
    ax.legend()


def draw_steps(seconds: Mapping[str, Sequence[float]], words: Mapping[str, str], shape: str) -> None:
    """A bar for each way: the median of its steps."""
    names = [words.get(way, "one process, all cores") for way in seconds]
    values = [1e3 * float(np.median(times)) for times in seconds.values()]
    plots.bars_with_intervals(names, values, title=f"{shape}: a decode step", value_label="time of a step (ms)")


def simulate(
    model: Served, device: Device, counts: Sequence[int], context: int, longest: float
) -> dict[int, list[Layout]]:
    """All ways to use so many devices, each with as many users as memory and `longest` seconds a token allow."""
    return {count: layouts(model, device, count, context, longest) for count in counts}


def draw_simulation(found: Mapping[int, Sequence[Layout]], title: str) -> None:
    """Time between the tokens of a user who is alone, and tokens a second for each device with as many users as there
    is room for, over the devices."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    for place, (way, (line, marker)) in enumerate(LOOKS.items()):
        points = [one for ways in found.values() for one in ways if one.way == way and one.users]
        look = dict(color=plots.COLORS[place], linestyle=line, marker=marker, label=way)
        axes[0].plot([one.devices for one in points], [1e3 * one.alone for one in points], **look)
        rates = [one.tokens_per_second / one.devices for one in points]
        axes[1].plot([one.devices for one in points], rates, **look)
    axes[0].set(title=f"{title}: a user alone (simulated)", ylabel="between tokens (ms)", yscale="log")
    axes[1].set(title="as many users as there is room for (simulated)", ylabel="tokens per second and device")
    axes[1].set_ylim(bottom=0)
    for ax in axes:
        ax.set_xlabel("devices (count)")
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(found), list(map(str, found)))
    axes[0].legend(fontsize=9)


def read_simulation(found: Mapping[int, Sequence[Layout]]) -> None:
    """For each number of devices the way that serves most, and the one that is fastest for a user alone."""
    print(f"simulated{'':10}{'most tokens a second':>36}{'fastest for a user alone':>36}")
    for count, ways in found.items():
        served, most, alone = [one for one in ways if one.users], "it doesn't fit", ""
        if served:
            best, fastest = max(served, key=lambda one: one.tokens_per_second), min(served, key=lambda one: one.alone)
            most = f"{best.way}, {best.tokens_per_second / count:,.0f} a device"
            alone = f"{fastest.way}, {1e3 * fastest.alone:.1f} ms"
        print(f"{count:>3} device{'s' * (count > 1):1}{'':8}{most:>36}{alone:>36}")
