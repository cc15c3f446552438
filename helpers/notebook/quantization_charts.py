"""Methods beside each other: answers against bytes, answers against speed, step times by rows (notebook 02)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from helpers.errors import CourseError
from helpers.measuring.quality import wilson
from helpers.notebook import plots

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*", "p")


@dataclass(frozen=True)
class Point:
    """A method in a chart: its place on the x axis, and how many of how many answers are right."""

    x: float
    right: int
    n: int

    @property
    def share(self) -> float:
        return self.right / self.n


def draw_answers_against(
    points: Mapping[str, Point], *, title: str, label: str, exact: str, ax: Axes | None = None
) -> Axes:
    """Share of right answers over bytes or speed, a hollow mark for each method, named in the legend from left to
    right; the band is the 95 % interval of `exact`, the method that the others are measured against."""
    if exact not in points or "(" not in label:
        raise CourseError("Give the method that the others are compared with, and the axis with its unit.")
    ax = ax or plt.subplots(figsize=(9.5, 4.6))[1]
    of_exact = points[exact]
    low, high = wilson(of_exact.right, of_exact.n)
    ax.axhspan(low, high, color="#e8eef2", zorder=0, label=f"95 % interval of {exact}")
    for place, (name, point) in enumerate(sorted(points.items(), key=lambda item: item[1].x)):
        look = {"color": plots.COLORS[place % len(plots.COLORS)], "marker": MARKERS[place % len(MARKERS)]}
        ax.plot(
            point.x, point.share, label=name, markerfacecolor="none", markersize=9, markeredgewidth=2, ls="", **look
        )
    shares = [low, high, *(point.share for point in points.values())]
    room = 0.05 * max(max(shares) - min(shares), 0.1)
    ax.set(xlim=(0, 1.08 * max(point.x for point in points.values())))
    ax.set(ylim=(max(0, min(shares) - room), min(1.02, max(shares) + room)))
    ax.set(title=title, xlabel=label, ylabel=f"right answers (share of {of_exact.n})")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return ax


def draw_by_rows(
    milliseconds: Mapping[str, Mapping[int, float]], *, title: str, baseline: str, ax: Axes | None = None
) -> Axes:
    """Groups of bars, one for each number of rows in a step: each format's time, the baseline's as a thin line."""
    rows = list(milliseconds[baseline])
    ax = ax or plt.subplots(figsize=(9, 4))[1]
    wide = 0.8 / len(milliseconds)
    hatches = ("", "///", "...", "xx", "--", "++", "oo")
    for place, (name, times) in enumerate(milliseconds.items()):
        at = [group + (place - (len(milliseconds) - 1) / 2) * wide for group in range(len(rows))]
        look = {"color": plots.COLORS[place % len(plots.COLORS)], "hatch": hatches[place % len(hatches)]}
        ax.bar(at, [times[n] for n in rows], wide * 0.92, label=name, edgecolor="white", **look)
    for group, n in enumerate(rows):
        ends = group - 0.45, group + 0.45
        label = f"{baseline}, to compare" if group == 0 else None
        ax.plot(ends, [milliseconds[baseline][n]] * 2, color="#1c2330", linewidth=1.2, ls="--", marker="", label=label)
    ax.set_xticks(range(len(rows)), [f"{n} row{'s' * (n > 1)}" for n in rows])
    ax.set(title=title, xlabel="rows in a step (count)", ylabel="time of a step (ms)")
    ax.legend(fontsize=9)
    return ax


def draw_errors(errors: Mapping[str, Sequence[tuple[float, float]]], *, title: str, x_label: str, y_label: str) -> Axes:
    """A line for each series of (x, error)."""
    ax = plt.subplots(figsize=(8, 3.8))[1]
    for place, (name, series) in enumerate(errors.items()):
        look = {"color": plots.COLORS[place % len(plots.COLORS)], "marker": plots.MARKERS[place % len(plots.MARKERS)]}
        ax.plot(*zip(*series), label=name, **look)
    ax.set(title=title, xlabel=x_label, ylabel=y_label)
    ax.legend(fontsize=9)
    return ax
