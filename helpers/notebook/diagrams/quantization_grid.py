"""A grid of a few bits, and where weights land on it: the largest one decides how coarse it is (notebook 02)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import DARK, INK, SMALL, canvas, line, width_of, write
from helpers.notebook.plots import COLORS

HALF, ROW = 4.3, 1.75  # inches: from 0 to the largest weight of all, from row to row
WEIGHTS, LEVELS, CODES, WORDS = 1.05, 0.5, 0.24, 1.38  # inches above a row's lower edge


def draw_grid(rows: Mapping[str, Sequence[float]], bits: int = 3, ax: Axes | None = None) -> Figure:
    """Each row's weights above their grid, a line from every weight to the level that it becomes.

    Args:
        rows: by name, weights that share a scale: the row's largest over the largest integer.
        bits: of the integers, 2 to 4; symmetric, so that one code of them all stays unused.
    """
    if not 2 <= bits <= 4 or not rows or not all(len(weights) and max(map(abs, weights)) for weights in rows.values()):
        raise CourseError("A grid to look at has 2 to 4 bits, and rows with a weight other than 0.")
    most = 2 ** (bits - 1) - 1
    reach = max(abs(weight) for weights in rows.values() for weight in weights)
    title = f"{bits} bits are {2 * most + 1} levels, and the largest weight decides how far they lie apart"
    ax = canvas(2 * HALF + 0.6, ROW * len(rows), title, ax)
    middle = sum(ax.get_xlim()) / 2
    for place, (name, weights) in enumerate(rows.items()):
        floor = ROW * (len(rows) - 1 - place)
        step = max(map(abs, weights)) / most
        rounded = [_code(weight, step, most) * step for weight in weights]
        error = sum(abs(a - b) for a, b in zip(weights, rounded)) / len(weights)
        words = f"{name}: levels {step:.2g} apart, a weight is off by {error:.2g} on average"
        write(ax, (0.2, floor + WORDS), words, bold=True)

        def at(number: float) -> float:
            return middle + number / reach * HALF

        levels = [at(code * step) for code in range(-most, most + 1)]
        line(ax, (levels[0], floor + LEVELS), (levels[-1], floor + LEVELS))
        look = {"linestyle": "", "color": INK}
        ax.plot(levels, [floor + LEVELS] * len(levels), marker="|", markersize=12, markeredgewidth=2, **look)
        for weight, level in zip(weights, rounded):
            ax.plot(
                [at(weight), at(level)], [floor + WEIGHTS, floor + LEVELS], color=COLORS[2], linewidth=1.2, marker=""
            )
        dots = {"marker": "o", "markersize": 6, "linestyle": "", "color": DARK}
        ax.plot(list(map(at, weights)), [floor + WEIGHTS] * len(weights), **dots)
        wide_enough = levels[1] - levels[0] > width_of(f"{-most}", SMALL) + 0.06
        for code, left in zip(range(-most, most + 1), levels):
            if wide_enough or code in (-most, 0, most):
                write(ax, (left, floor + CODES), f"{code}", align="center", points=SMALL)
    return ax.figure


def _code(weight: float, step: float, most: int) -> int:
    """The nearest level's number."""
    return max(-most, min(most, round(weight / step)))
