"""Medusa heads on the hidden state: one vector, the next token, and guesses for those after it (notebook 08)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import (
    DARK,
    PALE,
    PAPER,
    SMALL,
    WARM,
    arrow,
    box,
    canvas,
    shown,
    width_of,
    write,
)

HEIGHT = 0.36  # inches: of a box
READ, MODEL, STATE, HEADS, GUESSES = 0.15, 0.85, 1.65, 2.6, 3.45  # inches: the rows' lower edges


def draw_medusa_heads(
    read: Sequence[str], certain: str, guesses: Sequence[str], width: int, ax: Axes | None = None
) -> Figure:
    """What stands on the last hidden state: the model's own lm_head, and the heads.

    Args:
        read: the last tokens that the model has read.
        certain: the model's own next token.
        guesses: each head's best guess.
        width: of the hidden state, in numbers.
    """
    if not read or not guesses:
        raise CourseError("Heads stand on a token that was read, and guess at least one: give both.")
    tops = ["lm_head", *(f"head {i}" for i in range(1, len(guesses) + 1))]
    below = [f"t+{i}" for i in range(1, len(tops) + 1)]
    tokens = [shown(certain), *map(shown, guesses)]
    name = f"its last hidden state: {width:,} numbers"
    column = max(max(map(width_of, [*tops, *tokens])) + 0.5, (width_of(name) + 0.6) / len(tops))
    whole = len(tops) * column
    row = [shown(token) for token in read]
    who, what = (f"{len(guesses)} heads read", "guess") if len(guesses) > 1 else ("1 head reads", "guesses")
    title = f"{who} the same hidden state and {what} further ahead"
    ax = canvas(max(whole, sum(width_of(t) + 0.45 for t in row)) + 0.3, 4.5, title, ax)

    x, places = 0.15, []
    for token in row:
        places.append(x)
        box(ax, (x, READ), (width_of(token) + 0.3, HEIGHT), token, face=PAPER)
        x += width_of(token) + 0.45
    box(ax, (0.15, MODEL), (whole - 0.2, HEIGHT), "the frozen model", face=PALE, hatch="///")
    middle = places[-1] + (width_of(row[-1]) + 0.3) / 2
    arrow(ax, (middle, READ + HEIGHT), (middle, MODEL - 0.03))
    center = 0.15 + (whole - 0.2) / 2
    box(ax, (center - width_of(name) / 2 - 0.15, STATE), (width_of(name) + 0.3, HEIGHT), name, face=WARM)
    arrow(ax, (center, MODEL + HEIGHT), (center, STATE - 0.03))
    for i, (top, token, words) in enumerate(zip(tops, tokens, below)):
        left, own = 0.15 + i * column, i == 0
        box(ax, (left, HEADS), (column - 0.2, HEIGHT), top, face=PALE if own else DARK, hatch="///" if own else "")
        arrow(ax, (center, STATE + HEIGHT), (left + (column - 0.2) / 2, HEADS - 0.03))
        box(ax, (left, GUESSES), (column - 0.2, HEIGHT), token, face=WARM if own else PAPER, dashed=not own)
        arrow(ax, (left + (column - 0.2) / 2, HEADS + HEIGHT), (left + (column - 0.2) / 2, GUESSES - 0.03))
        write(ax, (left + (column - 0.2) / 2, GUESSES + HEIGHT + 0.16), words, align="center", points=SMALL)
    words = "hatched: frozen; dark: trained; dashed: guesses, to be checked by the next step"
    write(ax, (0.15, 4.35), words, points=SMALL)
    return ax.figure
