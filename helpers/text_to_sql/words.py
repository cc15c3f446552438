"""Rare and unfamiliar words, real ones: what a model can only copy. A fifth is held out of training."""

from __future__ import annotations

import hashlib
from functools import cache

from helpers.text_to_sql.domains import DATA


def held_out(word: str) -> bool:
    """Whether training must not show this word: a fifth, by hash; plurals with it."""
    return hashlib.sha256(word.lower().rstrip("s").encode()).digest()[0] % 5 == 0


@cache
def real_words(kind: str, training: bool) -> tuple[str, ...]:
    """The committed words of `kind` ("nouns" in lower case, "names" capitalised) that training may see, or else the
    held-out ones."""
    committed = (DATA / f"{kind}.txt").read_text(encoding="utf-8").split()
    return tuple(word for word in committed if held_out(word) != training)


def plural(noun: str) -> str:
    """The English plural, by the three rules that cover almost every noun."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"
