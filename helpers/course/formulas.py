"""Formulas as MathML, which browsers draw by themselves: a page with them needs nothing from outside."""

from __future__ import annotations

from latex2mathml.converter import convert


def mathml(latex: str, display: bool = False) -> str | None:
    """A formula of LaTeX as a <math> element, `display` on a line of its own; None where it can't be converted.

    With a command that latex2mathml doesn't know, the caller keeps the LaTeX.
    """
    try:
        element = convert(latex.strip(), display="block" if display else "inline")
    except Exception:  # of many kinds, for LaTeX that is not well formed
        return None
    return None if "\\" in element else element  # an unknown command would stand in the formula as it was written
