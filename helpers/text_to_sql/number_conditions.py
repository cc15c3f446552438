"""Conditions on numbers and dates: "that cost over 5", "released in March 2019"."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

from helpers.text_to_sql.asked_conditions import Condition
from helpers.text_to_sql.domains import Column, Table
from helpers.text_to_sql.sql import Ref
from helpers.text_to_sql.values import draw_date, draw_number
from helpers.text_to_sql.wording import MONTHS, OWN_SHARE, Speaker, put_value

# Before a number that measures, not one that names: "of 5 nights", not "on floor 5".
MEASURED = re.compile(
    r"\b(in|of|for|with|at|aged|weigh|weighing|cost|costing|last|lasting|lasted|sleep|hold|have|measure|earn|earning)"
    r" \{v\}"
)
# "a fee over 5" -> "a fee of at least 5", though "a screen over 5 m wide" -> "a screen at least 5 m wide".
OF_SIZE = re.compile(
    r"\b(an? (?:[\w-]+ ){1,3})(?<!of )(?<!for )(at least|at most|no more than)"
    r"(?! \{v\}.* (?:wide|long|high|tall|deep|across)\b)"
)


def number_condition(s: Speaker, table: Table, column: Column) -> Condition | None:
    """A comparison with a number, or with the average of all; nothing where the draw would sound odd."""
    ways = {"gt": 30, "lt": 24, "ge": 11, "le": 8, "between": 10, "eq": 13, "above": 3}
    if column.type != "INTEGER":
        del ways["eq"]
    if not column.is_measure:
        del ways["above"]
    way = s.rng.choices(list(ways), list(ways.values()))[0]
    special: dict[str, Callable] = {"between": _number_between, "eq": _number_equal, "above": _above_average}
    return special[way](s, table, column) if way in special else _compared(s, table, column, way)


def _compared(s: Speaker, table: Table, column: Column, way: str) -> Condition | None:
    value = draw_number(s.rng, column)
    if value == 0 or value == column.values[way in ("gt", "ge")]:
        return None  # "fewer than 0 goals"
    use, operator, generic = {
        "gt": ("more", ">", "after" if column.is_year else "gt"),
        "lt": ("less", "<", "before" if column.is_year else "lt"),
        "ge": ("more", ">=", "from" if column.is_year else "ge"),
        "le": ("less", "<=", "until" if column.is_year else "le"),
    }[way]
    if way in ("gt", "lt"):
        phrase = s.phrase(column, use, generic)
    else:
        strict = r"(more than|over)" if way == "ge" else r"(less than|fewer than|under)"
        instead = "at least {v}" if way == "ge" else s.rng.choice(("at most {v}", "no more than {v}"))
        phrase = _derived(s, column, use, rf"(?<=\w )(?<!\bat ){strict} \{{v\}}", instead) or s.generic(column, generic)
    return _of_number(Ref(table, column, f"{{c}} {operator} {value}"), phrase, value)


def _number_equal(s: Speaker, table: Table, column: Column) -> Condition | None:
    value = draw_number(s.rng, column)
    phrase = s.phrase(column, "is", "eq_year" if column.is_year else "eq_number")
    return _of_number(Ref(table, column, f"{{c}} = {value}"), phrase, value)


def _of_number(ref: Ref, phrase: str, value: float) -> Condition | None:
    """Nothing where one thing would stand in the plural: "with 1 bedrooms"."""
    return None if value == 1 and not phrase.endswith("{v}") else Condition(ref, put_value(phrase, str(value)))


def _number_between(s: Speaker, table: Table, column: Column) -> Condition | None:
    low, high = sorted((draw_number(s.rng, column), draw_number(s.rng, column)))
    if low == high:
        return None
    own = _derived(s, column, "is", MEASURED, r"\1 between {a} and {b}")
    phrase = (own or s.generic(column, "between")).replace("in between", "between")
    phrase = phrase.replace("{a}", str(low)).replace("{b}", str(high))
    return Condition(Ref(table, column, f"{{c}} BETWEEN {low} AND {high}"), phrase)


def _above_average(s: Speaker, table: Table, column: Column) -> Condition:
    form = f"{{c}} > (SELECT AVG({column.name}) FROM {table.name})"
    return Condition(Ref(table, column, form), s.generic(column, "above"), "subquery")


def _derived(s: Speaker, column: Column, use: str, pattern: str | re.Pattern, instead: str) -> str | None:
    """A phrase of the column's with a piece replaced: "with over {v} seats" -> "with at least {v} seats"."""
    made = [re.sub(pattern, instead, p) for p in column.phrases.get(use, ()) if re.search(pattern, p)]
    made = [p for p in made if "exactly" not in p and not re.search(r"\b(an?|number) between", p)]
    made = [OF_SIZE.sub(r"\1of \2", p) for p in made]
    return s.rng.choice(made) if made and s.rng.random() < OWN_SHARE else None


# ---- dates
def date_condition(s: Speaker, table: Table, column: Column) -> Condition:
    """A comparison with a day, in one of three spellings, or with a year, a month or a stretch of time."""
    day = draw_date(s.rng, column)
    way = s.rng.choices(("after", "before", "year", "month", "on", "between"), (26, 24, 24, 8, 9, 9))[0]
    if way == "between":
        later = day + timedelta(days=s.rng.choice((30, 90, 365, 700)))
        own = _derived(s, column, "in", r"in \{v\}", "between {a} and {b}")
        phrase = (own or s.generic(column, "between_dates")).replace("{a}", str(day)).replace("{b}", str(later))
        form = f"{{c}} BETWEEN '{day}' AND '{later}'"
    else:
        month = f"{MONTHS[day.month - 1]} {day.year}"
        use, generic, value, form = {
            "after": ("more", "after", s.day(day), f"{{c}} > '{day}'"),
            "before": ("less", "before", s.day(day), f"{{c}} < '{day}'"),
            "year": ("in", "in_year", str(day.year), f"{{c}} LIKE '{day.year}%'"),
            "month": ("in", "in_year", month, f"{{c}} LIKE '{day:%Y-%m}%'"),
            "on": ("is", "on", s.day(day), f"{{c}} = '{day}'"),
        }[way]
        phrase = put_value(s.phrase(column, use, generic), value)
    return Condition(Ref(table, column, form), phrase, "date")
