"""Prefill and decode with a KV cache: what each step computes, and what it reads again (notebook 00)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import DARK, PALE, PAPER, SMALL, box, canvas, shown, width_of, write

ROW, HEIGHT = 0.62, 0.36  # inches: from row to row, of a box
KEPT = "K V"


def draw_prefill_and_decode(prompt: Sequence[str], answer: Sequence[str], ax: Axes | None = None) -> Figure:
    """A row for each step: the prefill computes the whole prompt, each decode step the token written last.

    Args:
        prompt: the prompt's tokens as text.
        answer: the tokens that the model writes, one in each step.
    """
    if not prompt or not answer:
        raise CourseError("The diagram of prefill and decode needs a prompt and an answer of a token or more.")
    tokens = [shown(token) for token in [*prompt, *answer]]
    column = max(width_of(text) for text in [*tokens, KEPT]) + 0.22
    counts = [(len(prompt) if row == 0 else 1, len(prompt) + row) for row in range(len(answer))]
    words = [f"computes {computed}, reads {known - computed} again" for computed, known in counts]
    labels = max(width_of(text, SMALL) for text in words) + 0.3
    width, height = labels + len(tokens) * column + 0.1, len(answer) * ROW + 0.55
    title = "Prefill reads the prompt at once; decode computes one token and reads the rest again"
    ax = canvas(width, height, title, ax)

    def cell(row: int, place: int, text: str, **look) -> None:
        bottom = height - (row + 1) * ROW + (ROW - HEIGHT) / 2
        box(ax, (labels + place * column, bottom), (column - 0.08, HEIGHT), text, **look)

    for row, (computed, known) in enumerate(counts):  # known: tokens that the model has read after this step
        for place in range(known):
            if place < known - computed:
                cell(row, place, KEPT, face=PALE, hatch="///", points=SMALL)
            else:
                cell(row, place, tokens[place], face=DARK)
        cell(row, known, tokens[known], face=PAPER, dashed=True)
        name = "prefill" if row == 0 else f"decode step {row}"
        middle = height - (row + 0.5) * ROW
        write(ax, (0.1, middle + 0.09), name, bold=True)
        write(ax, (0.1, middle - 0.1), words[row], points=SMALL)
    _legend(ax)
    return ax.figure


def _legend(ax: Axes) -> None:
    place = 0.1
    looks = {
        "computed in this step": {"face": DARK},
        "kept in the KV cache, read again": {"face": PALE, "hatch": "///"},
        "written, computed by the next step": {"face": PAPER, "dashed": True},
    }
    for words, look in looks.items():
        box(ax, (place, 0.12), (0.24, 0.2), **look)
        write(ax, (place + 0.31, 0.22), words, points=SMALL)
        place += 0.31 + width_of(words, SMALL) + 0.2
