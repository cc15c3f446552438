"""Sentences that cells print, in lines that fit a page."""

from __future__ import annotations

import textwrap

WIDTH = 92  # characters: what a page shows without a scroll bar


def say(*sentences: str) -> None:
    """Sentences in lines of WIDTH characters."""
    print(textwrap.fill(" ".join(sentences), WIDTH))


def indented(text: str, first: str) -> str:
    """The text in lines of WIDTH characters, `first` before the first, and as many spaces before all others."""
    rest = " " * len(first)
    filled = [
        textwrap.fill(line, WIDTH, initial_indent=rest if place else first, subsequent_indent=rest) or rest
        for place, line in enumerate(text.splitlines() or [""])
    ]
    return "\n".join(filled)
