"""A step's time as a bar of the equation's terms, one bar for each way to compute the step (notebook 00)."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from helpers.errors import CourseError
from helpers.measuring.cost_model import FORMS
from helpers.notebook.diagrams.canvas import INK, SMALL, TITLE
from helpers.notebook.plots import COLORS

LOOKS = (("#14405e", ""), ("#d9e4ea", "///"), ("#d1711f", "..."), ("white", "xx"), (COLORS[3], ""), (COLORS[4], "--"))
HIDDEN = ("weights", "arithmetic")  # the terms of which only the larger counts where they overlap


def draw_step_bars(
    terms: Mapping[str, Mapping[str, float]],
    measured: Mapping[str, float] | None = None,
    *,
    form: str = "sum",
    title: str = "What a decode step's time is made of, by the fitted equation",
    ax: Axes | None = None,
) -> Figure:
    """A bar for each step, its terms one after the other, the numbers below it.

    Args:
        terms: by the step's name, seconds of each term: what `StepTime.terms` gives.
        measured: by the step's name, the measured seconds, marked with a diamond.
        form: the equation's; under "max" weights and arithmetic overlap, and the smaller is not drawn.
    """
    if form not in FORMS:
        raise CourseError(f"There is no form {form!r}; there are {', '.join(FORMS)}.")
    names = list(dict.fromkeys(name for parts in terms.values() for name in parts))
    if not names or len(names) > len(LOOKS) or min(min(parts.values()) for parts in terms.values()) < 0:
        raise CourseError(f"Give 1 to {len(LOOKS)} terms for each step, none of them negative.")
    look = dict(zip(names, LOOKS))
    ax = ax or plt.subplots(figsize=(7.6, 0.9 * len(terms) + 1.5))[1]
    for row, (step, parts) in enumerate(terms.items()):
        drawn, end = _drawn(parts, form), 0.0
        for name, seconds in drawn.items():
            face, hatch = look[name]
            ax.barh(row, seconds * 1e3, 0.4, end * 1e3, color=face, hatch=hatch, edgecolor=INK, linewidth=0.8)
            end += seconds
        total, reach = f"{milliseconds(end)} ms", end
        if measured and step in measured:
            total, reach = f"{total}, measured {milliseconds(measured[step])}", max(end, measured[step])
            ax.plot(measured[step] * 1e3, row, marker="D", color=INK, markerfacecolor="white", linestyle="", zorder=3)
        listed = [f"{n} {milliseconds(s)}{'' if n in drawn else ' (hidden)'}" for n, s in parts.items()]
        style = {"textcoords": "offset points", "fontsize": SMALL}
        ax.annotate(total, (reach * 1e3, row), (9, 0), va="center", **style)
        ax.annotate(", ".join(listed) + " ms", (0, row + 0.27), (3, 0), va="top", **style)
    ax.set_title(title, loc="left", fontsize=TITLE, fontweight="bold")
    ax.set_yticks(range(len(terms)), list(terms))
    longest = max([*(sum(_drawn(parts, form).values()) for parts in terms.values()), *(measured or {}).values()])
    ax.set(ylim=(len(terms) - 0.3, -0.85), xlim=(0, 1.42e3 * longest), xlabel="time of a step (ms)")
    ax.grid(axis="y", visible=False)
    patches = [Patch(facecolor=look[name][0], hatch=look[name][1], edgecolor=INK, label=name) for name in names]
    ax.legend(handles=patches, loc="upper left", ncols=len(names), borderaxespad=0.2)
    return ax.figure


def _drawn(parts: Mapping[str, float], form: str) -> dict[str, float]:
    """The terms that count: under "max" without the smaller of those that overlap."""
    if form == "sum" or not all(name in parts for name in HIDDEN):
        return dict(parts)
    hidden = min(HIDDEN, key=lambda name: parts[name])
    return {name: seconds for name, seconds in parts.items() if name != hidden}


def milliseconds(seconds: float) -> str:
    """Three digits at the most: "130", "22.1", "0.04"."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
