"""Which weights go: by their size, or by size times the norm of their input (after Wanda's figure 1; notebook 04)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import DARK, PAPER, SMALL, WARM, box, canvas, width_of, write

CELL, GAP = 0.5, 0.9  # inches
Table = Sequence[Sequence[float]]
Kept = Sequence[Sequence[bool]]


def draw_pruning_scores(
    weight: Table, norms: Sequence[float], by_size: Kept, by_score: Kept, ax: Axes | None = None
) -> Figure:
    """Two grids: the weights' sizes, and their scores |W| x norm under the inputs' norms; what stays is dark.

    Args:
        weight: rows of a small weight (out, in).
        norms: of each input.
        by_size, by_score: rows of truth values, whether a weight stays.
    """
    rows, columns = len(weight), len(norms)
    shapes = {(len(t), *map(len, t)) for t in (weight, by_size, by_score)}
    if not rows or shapes != {(rows, *[columns] * rows)}:
        raise CourseError("Weights and masks need as many rows as each other, and a number for each norm in every row.")
    heads = ("sizes |W|: the smallest of all go", "scores |W| × norm: the smallest of each row go")
    widths = [max(columns * CELL, width_of(head)) for head in heads]
    left = [0.9, 0.9 + widths[0] + GAP]
    bottom = 0.45
    top = bottom + rows * CELL
    ax = canvas(left[1] + widths[1] + 0.15, top + CELL + 0.75, "Which half goes?", ax)
    scores = [[abs(w) * norm for w, norm in zip(row, norms)] for row in weight]
    sizes = [[abs(w) for w in row] for row in weight]
    for start, head, numbers, kept in zip(left, heads, (sizes, scores), (by_size, by_score)):
        write(ax, (start, top + CELL + 0.45), head)
        for row, (values, stays) in enumerate(zip(numbers, kept)):
            for column, (value, stay) in enumerate(zip(values, stays)):
                corner = (start + column * CELL, top - (row + 1) * CELL)
                look = {"face": DARK} if stay else {"face": PAPER, "dashed": True}
                box(ax, corner, (CELL, CELL), f"{value:g}", **look)
    for column, norm in enumerate(norms):
        box(ax, (left[1] + column * CELL, top + 0.08), (CELL, 0.7 * CELL), f"{norm:g}", face=WARM)
    write(ax, (left[1] - 0.1, top + 0.08 + 0.35 * CELL), "norms", align="right")
    for row in range(rows):
        write(ax, (left[0] - 0.1, top - (row + 0.5) * CELL), f"output {row}", align="right", points=SMALL)
    write(ax, (0.15, 0.2), "dark: stays; dashed: becomes 0", points=SMALL)
    return ax.figure
