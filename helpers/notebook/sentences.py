"""Sentences that cells print, in lines that fit a page."""

from __future__ import annotations

import textwrap

WIDTH = 92  # characters: what a page shows without a scroll bar


def say(*sentences: str) -> None:
    """Sentences in lines of WIDTH characters."""
    print(textwrap.fill(" ".join(sentences), WIDTH))
