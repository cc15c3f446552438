"""What the generator must leave to the handwritten questions: none of them, its names masked, is ever generated."""

from __future__ import annotations

import json
import re
from functools import cache

from helpers.text_to_sql.names import DATA


def masked(context: str, question: str) -> str:
    """The question in lower case, its words that stand in the tables' names replaced by x."""
    names = {w.lower() for w in re.findall(r"\w+", context)}
    return " ".join("x" if w.lower() in names else w.lower() for w in re.findall(r"\w+", question))


FILES = ("handwritten.jsonl", "handwritten_2.jsonl")


@cache
def handwritten_forms() -> frozenset[str]:
    """The handwritten questions, masked."""
    lines = [line for file in FILES for line in (DATA / file).read_text(encoding="utf-8").splitlines()]
    return frozenset(masked(row["context"], row["question"]) for row in map(json.loads, lines))
