"""Heads over ranks, messages and their line, and devices that aren't here (notebook 06)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from helpers.notebook import plots
from helpers.notebook.sentences import say
from helpers.parallel.heads import shard_heads
from helpers.parallel.layouts import Device, Layout, Served, best_layout, layouts
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
    plt.tight_layout()


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
    model: Served, device: Device, counts: Sequence[int], users_each: int, context: int
) -> dict[int, list[Layout]]:
    """All ways to use so many devices, with as many users for each of them."""
    return {count: layouts(model, device, count, users_each * count, context) for count in counts}


def draw_simulation(found: Mapping[int, Sequence[Layout]], title: str) -> None:
    """Time between a user's tokens, and tokens a second for each device, over the devices; hollow where the memory
    isn't enough."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    for place, way in enumerate(LOOKS):
        line, marker = LOOKS[way]
        points = [one for layouts_ in found.values() for one in layouts_ if one.way == way]
        counts = [one.devices for one in points]
        for ax, values in (
            (axes[0], [1e3 * one.seconds for one in points]),
            (axes[1], [one.tokens_per_second / one.devices for one in points]),
        ):
            color = plots.COLORS[place]
            ax.plot(counts, values, color=color, linestyle=line, marker="", label=way)
            for count, value, one in zip(counts, values, points, strict=True):
                ax.plot(count, value, marker=marker, color=color, markerfacecolor=color if one.fits else "white")
    for ax, label in zip(axes, ("between a user's tokens (ms)", "tokens per second and device"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="devices (count)", ylabel=label)
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(found), list(map(str, found)))
    axes[0].set_title(title)
    axes[1].set_title("simulated; hollow: too little memory")
    axes[0].legend()


def read_simulation(found: Mapping[int, Sequence[Layout]], longest: float) -> None:
    """For each number of devices the way with the most tokens that keeps a user's wait below `longest` seconds."""
    for count, ways in found.items():
        best = best_layout(list(ways), longest)
        if best is None:
            say(f"{count:3} devices: nothing fits the memory and {1e3 * longest:.0f} ms a token.")
            continue
        say(
            f"{count:3} devices: {best.way}, {1e3 * best.seconds:.1f} ms between tokens,",
            f"{best.tokens_per_second / count:,.0f} tokens per second and device (simulated).",
        )
