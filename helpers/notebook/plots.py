"""One style and the few charts that the course repeats; they take plain numbers and refuse axes without a unit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from helpers.errors import CourseError

COLORS = ("#14405e", "#d1711f", "#5fa3c7", "#8a3b76", "#9fb53a")
MARKERS = ("o", "s", "^", "D", "v")
HATCH = {"measured": "", "predicted": "///", "simulated": "xxx"}


def use_style() -> None:
    """Give all later figures the course's look."""
    plt.style.use(Path(__file__).with_name("style.mplstyle"))


def bars_with_intervals(
    labels: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float] | None] = (),
    *,
    title: str,
    value_label: str,
    kinds: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """A horizontal bar for each label with its (low, high); what isn't measured is pale, hatched and named."""
    ax = _axes(ax, title, value_label)
    kinds = kinds or ["measured"] * len(labels)
    names = [label if kind == "measured" else f"{label}\n({kind})" for label, kind in zip(labels, kinds, strict=True)]
    for place, (value, kind) in enumerate(zip(values, kinds, strict=True)):
        face = COLORS[0] if kind == "measured" else "white"
        ax.barh(place, value, height=0.6, color=face, edgecolor=COLORS[0], hatch=HATCH[kind])
    ends = list(values)
    for place, interval in enumerate(intervals):
        if interval is not None:
            low, high = interval
            ax.errorbar((low + high) / 2, place, xerr=(high - low) / 2, color=COLORS[1], marker="", linestyle="")
            ends[place] = max(high, values[place])
    for place, (value, end) in enumerate(zip(values, ends, strict=True)):
        beside = dict(xytext=(5, 0), textcoords="offset points", va="center", zorder=5)
        box = dict(facecolor="white", edgecolor="none", pad=1)  # to be read over a mark that stands there
        ax.annotate(f"{value:.3g}", (end, place), bbox=box, **beside)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(value_label)
    return ax


def step_time_vs_bytes(
    groups: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    bytes_label: str = "weights read in a step (MB)",
    time_label: str = "time of a step (ms)",
    ax: Axes | None = None,
) -> Axes:
    """(bytes, time) points, a marker for each group; units as the labels say."""
    ax = _axes(ax, title, bytes_label, time_label)
    for place, (name, points) in enumerate(groups.items()):
        look = {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place % len(MARKERS)]}
        ax.plot(*zip(*points, strict=True), linestyle="", label=name, **look)
    ax.set(xlabel=bytes_label, ylabel=time_label, xlim=(0, None), ylim=(0, None))
    ax.legend()
    return ax


def step_time_vs_tokens(
    groups: Mapping[str, Sequence[tuple[int, float]]],
    balance: Mapping[str, float] | None = None,
    *,
    title: str,
    time_label: str = "time of a step (that with 1 token = 1)",
    ax: Axes | None = None,
) -> Axes:
    """Relative step times over the tokens that a step reads, on logarithmic axes, a line for each group; `balance`
    marks numbers of tokens."""
    ax = _axes(ax, title, time_label)
    for place, (name, points) in enumerate(groups.items()):
        look = {"color": COLORS[place // 2 % len(COLORS)], "marker": MARKERS[place % len(MARKERS)]}
        ax.plot(*zip(*points, strict=True), linestyle="-" if place % 2 == 0 else "--", label=name, **look)
    token_counts = sorted({count for points in groups.values() for count, _ in points})
    ax.plot(token_counts, token_counts, color="#555555", linestyle=":", marker="", label="if tokens cost in full")
    for name, count in (balance or {}).items():
        ax.axvline(count, color="#555555", linewidth=0.8)
        ax.annotate(
            name, (count, 0.98), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right", fontsize=8
        )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(token_counts, list(map(str, token_counts)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="tokens that a step reads", ylabel=time_label)
    ax.legend(fontsize=8)
    return ax


def pareto(
    points: Mapping[str, tuple[float, float]],
    *,
    title: str,
    cost_label: str,
    gain_label: str,
    ax: Axes | None = None,
) -> Axes:
    """Named (cost, gain) points; a line joins those that none beats in both (Pareto 1896), the others are hollow."""
    ax = _axes(ax, title, cost_label, gain_label)
    best = efficient(points)
    ax.step(*zip(*(points[name] for name in best), strict=True), where="post", color=COLORS[0], marker="", linewidth=1)
    for name, (cost, gain) in points.items():
        ax.plot(cost, gain, color=COLORS[0], marker="o", markerfacecolor=COLORS[0] if name in best else "white")
        ax.annotate(name, (cost, gain), xytext=(6, -4), textcoords="offset points", va="top", fontsize=9)
    ax.margins(0.15)
    ax.set(xlabel=cost_label, ylabel=gain_label)
    return ax


def efficient(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of the (cost, gain) points that no other beats, by rising cost."""
    frontier: list[str] = []
    for name, (_, gain) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if not frontier or gain > points[frontier[-1]][1]:
            frontier.append(name)
    return frontier


def timeline_of_steps(
    lanes: Mapping[str, Sequence[tuple[float, float, int]]],
    *,
    title: str,
    time_label: str = "time (ms)",
    ax: Axes | None = None,
) -> Axes:
    """A lane for each decoding: its steps as (start, duration, tokens accepted), the tokens written where they fit."""
    ax = _axes(ax, title, time_label)
    end = max(start + length for steps in lanes.values() for start, length, _ in steps)
    for place, steps in enumerate(lanes.values()):
        color = COLORS[place % len(COLORS)]
        ax.broken_barh([step[:2] for step in steps], (place - 0.35, 0.7), facecolor=color, edgecolor="white")
        for start, length, tokens in steps:
            if length > end / 45:
                ax.text(start + length / 2, place, str(tokens), ha="center", va="center", color="white", fontsize=8.5)
    ax.set_yticks(range(len(lanes)), list(lanes))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(time_label)
    return ax


def _axes(ax: Axes | None, title: str, *labels: str) -> Axes:
    """The axes to draw on, titled; CourseError where the title or a unit is missing."""
    if not title.strip():
        raise CourseError("A chart needs a title that says what it shows.")
    for label in labels:
        if "(" not in label:
            raise CourseError(f"The axis {label!r} needs its unit in parentheses: 'time of a step (ms)'.")
    ax = ax or plt.subplots()[1]
    ax.set_title(title)
    return ax
