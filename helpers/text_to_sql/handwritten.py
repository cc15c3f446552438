"""What the generator must leave to the handwritten questions: none of them, its names masked, is ever generated."""

from __future__ import annotations

import json
import re
from functools import cache

from helpers.text_to_sql.domains import DATA


def masked(context: str, question: str) -> str:
    """The question in lower case, its words that stand in the tables' names replaced by x."""
    names = {w.lower() for w in re.findall(r"\w+", context)}
    return " ".join("x" if w.lower() in names else w.lower() for w in re.findall(r"\w+", question))


@cache
def handwritten_forms() -> frozenset[str]:
    """The handwritten questions, masked."""
    lines = (DATA / "handwritten.jsonl").read_text(encoding="utf-8").splitlines()
    return frozenset(masked(row["context"], row["question"]) for row in map(json.loads, lines))
