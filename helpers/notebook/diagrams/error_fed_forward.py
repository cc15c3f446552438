"""GPTQ (Frantar et al. 2022): each weight is rounded, and those after it make up for the error (notebook 02b)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import DARK, PALE, SMALL, WARM, arrow, box, canvas, width_of, write

CELL, HEIGHT, ROW = 0.72, 0.36, 0.62  # inches: a number's width and height, from row to row
FLOOR = 0.5  # inches below the rows, for the words


def draw_error_fed_forward(states: Sequence[Sequence[float]], ax: Axes | None = None) -> Figure:
    """One row of a weight, before and after each rounding.

    Args:
        states: the row at the beginning, and after each of its weights was rounded: n + 1 rows of n numbers, or fewer
            rows, where only the first weights are shown.
    """
    many = len(states[0]) if states else 0
    if many < 2 or not 2 <= len(states) <= many + 1 or len({len(state) for state in states}) > 1:
        raise CourseError("Give a row of two weights or more, and the same row after each rounding.")
    rounds = len(states) - 1
    names = ["at the beginning", *(f"{place} rounded" for place in range(1, rounds + 1))]
    start = 0.2 + max(map(width_of, names)) + 0.25
    height = FLOOR + (rounds + 1) * ROW
    title = "GPTQ rounds from left to right, and lets the weights that are left make up for it"
    ax = canvas(start + many * CELL + 0.25, height, title, ax)
    for row, (state, name) in enumerate(zip(states, names)):
        bottom = FLOOR + (rounds - row) * ROW + 0.13
        write(ax, (0.2, bottom + HEIGHT / 2), name)
        for column, number in enumerate(state):
            done = column < row
            face = DARK if done else WARM if row and number != states[row - 1][column] else PALE
            box(ax, (start + column * CELL, bottom), (CELL, HEIGHT), f"{number:.2f}", face=face, points=SMALL)
        if row and row < many:
            below = bottom + HEIGHT + 0.12
            arrow(ax, (start + (row - 0.5) * CELL, below), (start + many * CELL - 0.1, below))
    words = "dark: rounded for good; orange: changed to make up for the error; the rest as it was"
    write(ax, (0.2, 0.22), words, points=SMALL)
    return ax.figure
