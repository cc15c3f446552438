"""NF4's levels and those of an even grid, over the normal density that weights nearly have (notebook 02)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import INK, TITLE
from helpers.notebook.plots import COLORS


def draw_nf4_levels(levels: Sequence[float], block: Sequence[float], ax: Axes | None = None) -> Figure:
    """A normal density as wide as this block's, the code book's levels under it, the block's weights below.

    Args:
        levels: the code book, from -1 to 1.
        block: weights that share a scale; they are drawn over the largest of them.
    """
    weights = np.asarray(block, float)
    if len(levels) < 2 or len(weights) < 2 or not np.abs(weights).max():
        raise CourseError("NF4's picture needs levels, and a block of weights that are not all 0.")
    scaled = weights / np.abs(weights).max()
    spread = max(scaled.std(), 1e-3)

    def density(x: np.ndarray) -> np.ndarray:
        return np.exp(-(x**2) / (2 * spread**2)) / (spread * np.sqrt(2 * np.pi))

    ax = ax or plt.subplots(figsize=(8.6, 4.2))[1]
    x, top = np.linspace(-1.05, 1.05, 501), float(density(np.zeros(1))[0])
    even = np.linspace(-1, 1, len(levels) - 1)  # symmetric integers: one code stays unused
    ax.plot(x, density(x), color=INK, linewidth=1.6, marker="", linestyle="-", label="normal density")
    at = np.asarray(levels, float)
    ax.vlines(at, 0, density(at), color=COLORS[0], linewidth=1.8, label=f"the {len(at)} levels of NF4")
    for height, places, color, name in (
        (-0.1, even, COLORS[1], f"an even grid of {len(even)} levels"),
        (-0.24, scaled, COLORS[2], f"the block's {len(scaled)} weights"),
    ):
        look = {"marker": "|", "markersize": 11, "markeredgewidth": 1.6, "linestyle": ""}
        ax.plot(places, np.full(len(places), height * top), color=color, label=name, **look)
    ax.set(xlim=(-1.08, 1.08), ylim=(-0.34 * top, 1.45 * top), yticks=[])
    ax.set(xlabel="weight / largest of its block (ratio)", ylabel="weights that lie there (density)")
    ax.set_title("NF4 puts its levels where the weights are", loc="left", fontsize=TITLE, fontweight="bold")
    ax.legend(loc="upper left", ncols=2, fontsize=9.5)
    return ax.figure
