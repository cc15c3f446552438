"""The roofline (Williams, Waterman, Patterson 2009) with this machine's points on it (notebooks 00 and 01)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import CourseError
from helpers.measuring.cost_model import balance_tokens
from helpers.notebook.diagrams.canvas import INK, SMALL, SOFT, TITLE, width_of
from helpers.notebook.plots import COLORS, MARKERS


def draw_roofline(
    points: Mapping[str, Sequence[tuple[int, float]]],
    *,
    parameters: float,
    bytes_per_weight: float,
    bandwidth: float,
    rate: float,
    title: str = "The roofline of this machine, and what its steps compute",
    ax: Axes | None = None,
) -> Figure:
    """Operations per second over the tokens of a step, on logarithmic axes, below the two roofs.

    Args:
        points: by name, (tokens that the step reads, its seconds), as measured.
        parameters: of the matrices that a step reads; each is used in 2 operations for every token.
        bandwidth: bytes per second from memory: a step reads every weight once, `bytes_per_weight` each.
        rate: operations per second in a large matrix product.
    """
    measured = [point for series in points.values() for point in series]
    if not measured or min(min(point) for point in measured) <= 0 or min(bandwidth, rate, parameters) <= 0:
        raise CourseError("A roofline needs measured points, a bandwidth and a rate, all greater than zero.")
    balance = balance_tokens(bytes_per_weight, bandwidth, rate)
    most = max(4 * balance, 2 * max(tokens for tokens, _ in measured))
    tokens = np.array([1, balance, most])
    memory_roof = 2 * tokens * bandwidth / bytes_per_weight / 1e9  # 2 x tokens x parameters over bytes / bandwidth
    achieved = {name: [(n, 2 * n * parameters / s / 1e9) for n, s in series] for name, series in points.items()}
    ax = ax or plt.subplots(figsize=(7.6, 4.4))[1]
    ax.plot(tokens, np.minimum(memory_roof, rate / 1e9), color=INK, linewidth=2.2, linestyle="-", marker="")
    for place, (name, series) in enumerate(achieved.items()):
        fill = COLORS[place % len(COLORS)] if place % 2 == 0 else "white"
        style = {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place % len(MARKERS)], "markerfacecolor": fill}
        ax.plot(*zip(*series), linestyle="-" if place % 2 == 0 else "--", linewidth=1, label=name, **style)
    every = [point for series in achieved.values() for point in series]
    lowest, highest = min(y for _, y in every), max(y for _, y in every)
    top = max(rate / 1e9, highest)  # a step whose weights lie in a cache may go through the roof
    ax.plot([balance, balance], [0, rate / 1e9], color=SOFT, linewidth=0.9, linestyle=":", marker="")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set(xlim=(0.8, most), ylim=(min(lowest, memory_roof[0]) / 2.2, top * 2.6))
    ax.set_xticks([2**k for k in range(int(np.log2(most)) + 1)])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(plt.NullLocator())
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    ax.set(xlabel="tokens that a step reads (count)", ylabel="operations per second (GFLOP/s)")
    ax.set_title(title, loc="left", fontsize=TITLE, fontweight="bold")
    style = {"textcoords": "offset points", "fontsize": SMALL, "color": INK}
    ax.annotate(f"arithmetic: {rate / 1e9:,.0f} GFLOP/s", (most, top), (-4, 5), ha="right", va="bottom", **style)
    words = f"bandwidth: {bandwidth / 1e9:,.{1 if bandwidth < 1e11 else 0}f} GB/s"
    reach = (most / 0.8) ** ((width_of(words, SMALL) + 0.15) / (ax.figure.get_figwidth() - 0.9))  # tokens at its end
    through = [y for n, y in every if n < 2 * reach and y > memory_roof[0] * n]
    above = max([min(memory_roof[0] * reach, rate / 1e9), *through])
    ax.annotate(words, (1, above), (-4, 5), ha="left", va="bottom", **style)
    corner = f"balance: {balance:,.0f} tokens"
    ax.annotate(corner, (balance, ax.get_ylim()[0]), (5, 5), ha="left", va="bottom", **style)
    ax.legend(loc="lower right", fontsize=SMALL + 0.5, bbox_to_anchor=(1, 0.08))
    return ax.figure
