"""A tree of guesses, and beside it the attention mask with which one step checks them all (notebook 08)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.decoding.masks import own_mask
from helpers.decoding.proposals import depths, is_tree
from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import DARK, PALE, PAPER, SMALL, box, canvas, line, shown, width_of, write

HEIGHT, ROW, SQUARE = 0.34, 0.52, 0.36  # inches: of a node, from leaf to leaf, of a square of the mask


def draw_token_tree(certain: str, tokens: Sequence[str], parents: Sequence[int], ax: Axes | None = None) -> Figure:
    """On the left who follows whom, on the right who sees whom: a dark square where the row's token sees the column's.

    Args:
        certain: the last token that is certain.
        tokens: the guesses; `parents[i]` is the index of the guess that guess i follows, or -1 for the certain token.
    """
    if not tokens or len(tokens) != len(parents) or not is_tree(parents):
        raise CourseError("A tree needs a parent for each token: an earlier token's index, or -1.")
    names = [shown(certain), *map(shown, tokens)]
    places = _rows([parent + 1 for parent in parents])
    levels = [0, *depths(parents)]
    column = max(map(width_of, names)) + 0.55
    tree_width, num = 0.15 + (max(levels) + 1) * column, len(names)
    label = max(map(width_of, names)) + 0.15  # room for a token's name, beside a row and above a column
    tree_height, mask_height = (max(places) + 1) * ROW, num * SQUARE + label
    height = max(tree_height, mask_height) + 0.75
    heading = "who sees whom (row sees column)"
    start, top = tree_width + label, height - 0.4 - label
    title = f"A tree of {len(tokens)} guess{'es' * (num > 2)}, and the mask with which one step checks it"
    ax = canvas(start + max(num * SQUARE, width_of(heading, SMALL, bold=True)) + 0.2, height, title, ax)

    def corner(node: int) -> tuple[float, float]:
        down = height - 0.45 - (places[node] + 0.5) * ROW - (max(tree_height, mask_height) - tree_height) / 2
        return 0.15 + levels[node] * column, down - HEIGHT / 2

    write(ax, (0.15, height - 0.2), "who follows whom", points=SMALL, bold=True)
    for node, name in enumerate(names):
        left, bottom = corner(node)
        if node:
            from_left, from_bottom = corner(parents[node - 1] + 1)
            line(ax, (from_left + column - 0.35, from_bottom + HEIGHT / 2), (left, bottom + HEIGHT / 2))
        box(ax, (left, bottom), (column - 0.35, HEIGHT), name, face=PALE if node else DARK)

    seen = own_mask(1, parents)
    write(ax, (start, height - 0.2), heading, points=SMALL, bold=True)
    for row, name in enumerate(names):
        y = top - (row + 1) * SQUARE
        write(ax, (start - 0.08, y + SQUARE / 2), name, align="right")
        write(ax, (start + (row + 0.5) * SQUARE, top + 0.06), name, align="center", vertical="bottom", rotation=90)
        for other in range(num):
            sees = bool(seen[row, other])
            box(ax, (start + other * SQUARE, y), (SQUARE, SQUARE), "1" if sees else "", face=DARK if sees else PAPER)
    write(ax, (start, top - num * SQUARE - 0.15), "1: seen; white: not seen", points=SMALL)
    return ax.figure


def _rows(parents: Sequence[int]) -> list[float]:
    """For each node, the certain token first, the row that it stands in: leaves one below the other, a parent in the
    middle of its children. `parents` are indices of nodes."""
    children: list[list[int]] = [[] for _ in range(len(parents) + 1)]
    for node, parent in enumerate(parents, 1):
        children[parent].append(node)
    rows = [0.0] * len(children)
    leaves = 0

    def place(node: int) -> float:
        nonlocal leaves
        if children[node]:
            rows[node] = sum(map(place, children[node])) / len(children[node])
        else:
            rows[node] = leaves
            leaves += 1
        return rows[node]

    place(0)
    return rows
