"""LLM.int8 (Dettmers et al. 2022): a few columns of the input, and their rows of the weight, stay in 16 bits (02)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import DARK, PALE, SMALL, WARM, box, canvas, width_of, write

CELL = 0.3  # inches
FLOOR, ROOF = 0.95, 0.75  # inches below and above the matrices, for the words


def draw_outlier_columns(
    inputs: Sequence[Sequence[float]], threshold: float, num_outputs: int = 4, ax: Axes | None = None
) -> Figure:
    """x times W, taken apart: the outlier columns in 16 bits, everything else in integers.

    Args:
        inputs: a few tokens' input of a linear layer, (tokens, features).
        threshold: a feature is an outlier where one of its numbers is larger, whatever its sign.
        num_outputs: of the weight's columns, how many are drawn.
    """
    if not inputs or not inputs[0] or len({len(row) for row in inputs}) > 1 or num_outputs < 1:
        raise CourseError("LLM.int8's picture needs tokens with as many features each, and an output.")
    features = len(inputs[0])
    outlier = [max(abs(row[place]) for row in inputs) >= threshold for place in range(features)]
    count, tokens = sum(outlier), len(inputs)
    height = FLOOR + features * CELL + ROOF
    wide = width_of("+", 13) + 0.3
    words = [f"int8 × int8: {features - count} columns", f"16 bits: {count} columns"]
    room = max(map(width_of, words)) + 0.4
    whole = 0.2 + features * CELL + wide + num_outputs * CELL + wide + room + 0.2
    title = f"LLM.int8: {count} of {features} columns are outliers, and stay in 16 bits"
    ax = canvas(whole, height, title, ax)
    middle = FLOOR + features * CELL / 2

    left, bottom = 0.2, middle - tokens * CELL / 2
    for row in range(tokens):
        for column, large in enumerate(outlier):
            corner = (left + column * CELL, bottom + (tokens - 1 - row) * CELL)
            box(ax, corner, (CELL, CELL), face=DARK if large else PALE)
    center = left + features * CELL / 2
    write(ax, (center, bottom + tokens * CELL + 0.18), f"x: {tokens} tokens × {features} features", align="center")
    write(ax, (center, bottom - 0.2), f"dark: a number of {threshold:g} or more", align="center", points=SMALL)

    left += features * CELL + wide
    write(ax, (left - wide / 2, middle), "×", align="center", points=13)
    for row, large in enumerate(outlier):
        for column in range(num_outputs):
            corner = (left + column * CELL, FLOOR + (features - 1 - row) * CELL)
            box(ax, corner, (CELL, CELL), face=DARK if large else PALE)
    center = left + num_outputs * CELL / 2
    write(ax, (center, FLOOR + features * CELL + 0.18), "Wᵀ", align="center")

    left += num_outputs * CELL + wide
    write(ax, (left - wide / 2, middle), "=", align="center", points=13)
    box(ax, (left, middle + 0.25), (room, 0.5), words[0], face=PALE)
    write(ax, (left + room / 2, middle), "+", align="center", points=13)
    box(ax, (left, middle - 0.75), (room, 0.5), words[1], face=DARK)
    box(ax, (0.2, 0.12), (0.3, 0.3), face=WARM)
    write(ax, (0.62, 0.27), "one scale for each token (row of x) and for each column of Wᵀ", points=SMALL)
    for row in range(tokens):  # the scales, beside what they belong to
        box(ax, (0.06, bottom + row * CELL + 0.05), (0.09, CELL - 0.1), face=WARM)
    for column in range(num_outputs):
        start = left - wide - num_outputs * CELL + column * CELL
        box(ax, (start + 0.05, FLOOR - 0.14), (CELL - 0.1, 0.09), face=WARM)
    return ax.figure
