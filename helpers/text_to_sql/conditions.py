"""What a query asks of a column, and values for that column: such as meet it, and such as nearly do."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import date, timedelta

Literal = int | float | str | None

WORDS = (
    "Amber Birch Cobalt Dune Ember Fennel Garnet Hazel Indigo Juniper Kelp Linden Maple Nettle Ochre Poppy Quartz "
    "Rowan Sorrel Thistle Umber Violet Willow Yarrow Zinnia Aster Bramble Clover Drift Elder Fern Gorse Heather Iris"
).split()
# Operator -> steps from the literal to values that meet it.
STEPS = {">": (1, 2), ">=": (0, 1), "<": (-1, -2), "<=": (0, -1), "=": (0,), "!=": (-1, 1)}
SAME_OPERATOR = {"<>": "!=", "==": "="}
EXCLUDING = {"NOT IN", "NOT LIKE", "IS NOT"}  # any value meets it that isn't named


@dataclass(frozen=True)
class Condition:
    """`column operator literal`; the operator is one of STEPS, LIKE, IS or one of EXCLUDING."""

    operator: str
    literal: Literal

    def value_inside(self, rng: random.Random, numeric: bool) -> tuple[Literal, ...]:
        """One value that meets the condition, or none where almost every value does."""
        if self.operator in EXCLUDING:
            return ()
        if self.operator == "IS":
            return (self.literal,)
        if self.operator == "LIKE":
            return (matching(str(self.literal), rng, numeric),)
        return (step(self.literal, rng.choice(STEPS[self.operator])),)

    def values_around(self, rng: random.Random, numeric: bool) -> list[Literal]:
        """Values on both sides of the condition: those that a slightly wrong one lets in or leaves out."""
        if self.literal is None:  # IS NULL: nothing is not the empty string, nor zero
            return [0] if numeric else [""]
        if self.operator.endswith("LIKE"):
            text = str(self.literal).strip("%")
            patterns = (text, f"{text}%", f"%{text}", f"%{text}%")
            return [matching(pattern, rng, numeric, widen=True) for pattern in patterns]
        return [step(self.literal, by) for by in (-1, 0, 1)]


def step(value: Literal, by: int) -> Literal:
    """The value `by` steps from a number, or days from a date; for another text, a beginning of it (by < 0) or a text
    that begins with it: in SQL's order they stand before and after it."""
    if not isinstance(value, str):
        return value + by
    if value.isdecimal():
        return str(int(value) + by)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        try:
            return str(date.fromisoformat(value) + timedelta(days=by))
        except (ValueError, OverflowError):  # the 30th of February
            pass
    if by < 0:
        return value[:by]
    return f"{value} {WORDS[(len(value) + by) % len(WORDS)]}" if by else value


def matching(pattern: str, rng: random.Random, numeric: bool, widen: bool = False) -> str:
    """A text that LIKE `pattern` takes. `widen`: something stands in the place of every %."""

    def instead(wildcard: re.Match) -> str:
        if wildcard.group() == "_":
            return rng.choice("0123456789" if numeric else "aeiou")
        word = str(rng.randint(1, 9)) if numeric else rng.choice(WORDS)
        spaced = f" {word} " if not numeric and rng.random() < 0.5 else word
        return spaced if widen or rng.random() < 0.6 else ""

    return re.sub("[%_]", instead, pattern)
