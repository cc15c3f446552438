"""Conditions on one column: which it can have, and those on text and on missing values."""

from __future__ import annotations

import re

from helpers.text_to_sql.asked_conditions import Condition
from helpers.text_to_sql.domains import Column, Table
from helpers.text_to_sql.number_conditions import date_condition, number_condition
from helpers.text_to_sql.sql import Ref, literal
from helpers.text_to_sql.values import draw_text
from helpers.text_to_sql.wording import Speaker, put_value

LIKE_SHARE, HARD_LIKE_SHARE = 0.12, 0.25  # of the conditions on a text that is no category


def draw_condition(s: Speaker, table: Table, column: Column) -> Condition | None:
    """A condition on the column, or nothing where the draw came to nothing."""
    if column.maybe and s.rng.random() < 0.4:
        return _null(s, table, column)
    if column.type == "TEXT":
        return _text(s, table, column)
    if column.type == "DATE":
        return date_condition(s, table, column)
    return None if column.label else number_condition(s, table, column)


def _null(s: Speaker, table: Table, column: Column) -> Condition:
    is_null = s.rng.random() < 0.55
    use, generic, sql = ("null", "is_null", "IS NULL") if is_null else ("given", "not_null", "IS NOT NULL")
    return Condition(Ref(table, column, f"{{c}} {sql}"), s.phrase(column, use, generic), "null")


# ---- text
def _text(s: Speaker, table: Table, column: Column) -> Condition | None:
    if column.label or (not column.few and s.rng.random() < (HARD_LIKE_SHARE if s.hard else LIKE_SHARE)):
        return _like(s, table, column)
    # Rows without a value are neither equal nor unequal for SQL, though people would count them: no "not" there.
    shares = {_equal: 40 if s.hard else 72, _unequal: 9, _one_of_two: 7, _one_of: 6, _none_of: 6}
    if column.maybe:
        del shares[_unequal], shares[_none_of]
    return s.rng.choices(list(shares), list(shares.values()))[0](s, table, column)


def _equal(s: Speaker, table: Table, column: Column) -> Condition:
    value = draw_text(s.rng, column, s.training)
    ref = Ref(table, column, f"{{c}} = {literal(value)}")
    if column.adjective and s.rng.random() < 0.5:
        return Condition(ref, "", adjective=value)
    return Condition(ref, put_value(s.phrase(column, "is", "eq"), value))


def _unequal(s: Speaker, table: Table, column: Column) -> Condition:
    value = draw_text(s.rng, column, s.training)
    ref = Ref(table, column, f"{{c}} != {literal(value)}")
    return Condition(ref, put_value(s.phrase(column, "isnt", "ne"), value))


def _some_values(s: Speaker, column: Column, count: int) -> list[str] | None:
    """`count` values that a list can hold: none has a comma of its own."""
    values = list(dict.fromkeys(draw_text(s.rng, column, s.training) for _ in range(count + 2)))[:count]
    return values if len(values) > 1 and not any("," in v or " and " in v for v in values) else None


def _joined(values: list[str]) -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}"


def _one_of_two(s: Speaker, table: Table, column: Column) -> Condition | None:
    values = _some_values(s, column, 2)
    if not values:
        return None
    form = " OR ".join(f"{{c}} = {literal(v)}" for v in values)
    return Condition(Ref(table, column, form), put_value(s.phrase(column, "is", "in_list"), _joined(values)), "or")


def _one_of(s: Speaker, table: Table, column: Column) -> Condition | None:
    values = _some_values(s, column, 3)
    if not values or len(values) < 3:
        return None
    ref = Ref(table, column, f"{{c}} IN ({', '.join(map(literal, values))})")
    return Condition(ref, put_value(s.phrase(column, "is", "in_list"), _joined(values)), "in")


def _none_of(s: Speaker, table: Table, column: Column) -> Condition | None:
    values = _some_values(s, column, s.rng.choice((2, 3, 3)))
    if not values:
        return None
    ref = Ref(table, column, f"{{c}} NOT IN ({', '.join(map(literal, values))})")
    return Condition(ref, put_value(s.phrase(column, "isnt", "not_in"), _joined(values)), "not in")


def _like(s: Speaker, table: Table, column: Column) -> Condition | None:
    rng, value = s.rng, draw_text(s.rng, column, s.training)
    words = re.findall(r"[^\W\d_]{3,}", value)
    if not words:
        return None
    way = rng.choice(("starts", "ends", "contains", "contains"))
    letters = value[: rng.choice((1, 2, 3))] if value[0].isupper() else words[0]
    part = {
        "starts": rng.choice((letters, value.split()[0])),
        "ends": rng.choice((value[-rng.choice((2, 3)) :], value.split()[-1])),
        "contains": rng.choice(words),
    }[way]
    if not part.isalnum():
        return None
    pattern = {"starts": f"{part}%", "ends": f"%{part}", "contains": f"%{part}%"}[way]
    return Condition(
        Ref(table, column, f"{{c}} LIKE {literal(pattern)}"), put_value(s.generic(column, way), part), "like"
    )
