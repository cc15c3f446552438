"""Guess, check, keep: one speculative step with its tokens named (Leviathan et al. 2023; notebook 07)."""

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
from helpers.speculation.draft_model import agreed

HEIGHT, LABELS = 0.38, 1.95  # inches: of a box, for the words on the left
GUESS, CHECK, KEEP = 2.4, 1.45, 0.5  # inches: the rows' lower edges


def draw_speculative_step(
    certain: str, guesses: Sequence[str], answers: Sequence[str], ax: Axes | None = None
) -> Figure:
    """A draft guesses, the model checks all guesses in one step, and what it agrees with is kept.

    Args:
        certain: the last token that is certain.
        guesses: the draft's tokens, each following the one before it.
        answers: the model's own token after `certain` and after each guess: one more than there are guesses. The first
            that differs from the guess replaces it; where none differs the last is the bonus token.
    """
    if not guesses or len(answers) != len(guesses) + 1:
        raise CourseError(f"{len(guesses)} guesses need {len(guesses) + 1} answers of the model, not {len(answers)}.")
    num_accepted = agreed(guesses, answers)
    texts = [shown(certain), *map(shown, answers), *(crossed(guess) for guess in guesses)]
    column = max(map(width_of, texts)) + 0.36
    of = f"{num_accepted} of {len(guesses)} guesses accepted, {num_accepted + 1} token{'s' * (num_accepted > 0)}"
    ax = canvas(LABELS + (len(guesses) + 2) * column + 0.1, 3.0, f"Guess, check, keep: {of} in one step", ax)

    def cell(bottom: float, place: int, token: str, **look) -> None:
        box(ax, (LABELS + place * column, bottom), (column - 0.18, HEIGHT), token, **look)

    def middle(place: int) -> float:
        return LABELS + place * column + (column - 0.18) / 2

    words = {
        GUESS: ("guess", "the draft writes\none after the other"),
        CHECK: ("check", "the model's own token\nafter each, in one step"),
        KEEP: ("keep", "as far as they agree,\nthen the model's own"),
    }
    for bottom, (name, explanation) in words.items():
        write(ax, (0.1, bottom + HEIGHT / 2 + 0.17), name, bold=True)
        write(ax, (0.1, bottom + HEIGHT / 2 - 0.1), explanation, points=SMALL)
    cell(GUESS, 0, shown(certain), face=DARK)
    for place, guess in enumerate(guesses, 1):
        cell(GUESS, place, shown(guess), face=PALE)
        left, y = LABELS + place * column, GUESS + HEIGHT / 2
        arrow(ax, (left - 0.17, y), (left - 0.01, y))
    for place, answer in enumerate(answers, 1):
        judged = place <= len(guesses)
        reached = place <= num_accepted + 1  # behind a wrong guess the model's tokens follow something that is not so
        cell(CHECK, place, shown(answer), face=WARM if reached else PAPER, dashed=not reached)
        if reached:
            verdict = "= same" if place <= num_accepted else "≠ differs" if judged else "bonus"
            write(ax, (middle(place), (CHECK + HEIGHT + GUESS) / 2), verdict, align="center")
            arrow(ax, (middle(place), CHECK - 0.04), (middle(place), KEEP + HEIGHT + 0.04))
            cell(KEEP, place, shown(answer), face=DARK)
        elif judged:
            cell(KEEP, place, crossed(guesses[place - 1]), face=PAPER, dashed=True)
    if num_accepted < len(guesses):
        write(ax, (LABELS, 0.15), "dashed: behind a wrong guess, of no use", points=SMALL)
    return ax.figure


def crossed(token: str) -> str:
    """A rejected token: a cross before its text, which stays readable."""
    return f"× {shown(token)}"
