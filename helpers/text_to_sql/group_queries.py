"""Kinds of query that count, add up or group: a function for each draws SQL and words."""

from __future__ import annotations

from helpers.text_to_sql.asked import (
    FEW,
    Asked,
    about,
    ask,
    is_grouping,
    is_measure,
    is_other,
    is_sortable,
    is_summed,
    pick,
    predicated,
    rows_of,
)
from helpers.text_to_sql.domains import Column, Table
from helpers.text_to_sql.noun_phrases import NounPhrase
from helpers.text_to_sql.sql import Ref
from helpers.text_to_sql.wording import Speaker, quantity

FORMS = {
    "average": ("AVG({c})",),
    "total": ("SUM({c})",),
    "highest": ("MAX({c})",),
    "lowest": ("MIN({c})",),
    "range": ("MIN({c})", "MAX({c})"),
}
TESTS = {"average": is_measure, "total": is_summed, "range": is_measure}  # the others take dates, too
IN_TIME = {"highest": "latest", "lowest": "earliest"}
ADJECTIVES = {
    "average": ("average", "mean"),
    "total": ("total", "combined"),
    "highest": ("highest", "maximum", "largest"),
    "lowest": ("lowest", "minimum", "smallest"),
}
COMPARED = {
    ">": ("more than {n}", "over {n}", "more than {n}"),
    ">=": ("at least {n}", "{n} or more", "no fewer than {n}"),
    "<": ("fewer than {n}", "less than {n}", "under {n}"),
    "=": ("exactly {n}",),
}


def count(s: Speaker, table: Table) -> Asked:
    phrase = rows_of(s, table, (0, 1, 1, 1, 2, 2))
    return predicated(s, ask(phrase, "count", about(phrase, ["COUNT(*)"])), phrase, "count_pred")


def distinct(s: Speaker, table: Table) -> Asked | None:
    """The different values of a column, or their number."""
    column = pick(s, table, is_other, lambda c: c.type == "TEXT" or c.few)
    if not column:
        return None
    phrase = rows_of(s, table, FEW, [column])
    slots = {"col": s.noun(column), "col_s": s.nouns(column)}
    if s.rng.random() < 0.5:
        query = about(phrase, [Ref(table, column, "COUNT(DISTINCT {c})")])
        return ask(phrase, "count_distinct", query, slots["col"], **slots)
    return ask(phrase, "distinct", about(phrase, [Ref(table, column)], distinct=True), slots["col"], **slots)


def aggregate(s: Speaker, table: Table) -> Asked | None:
    name = s.rng.choice(("average", "average", "total", "total", "highest", "lowest", "range"))
    column = pick(s, table, TESTS.get(name, is_sortable))
    if not column:
        return None
    phrase = rows_of(s, table, (0, 1, 1, 1, 2), [column])
    query = about(phrase, [Ref(table, column, form) for form in FORMS[name]])
    is_time = column.type == "DATE" or column.is_year
    own = [question.replace("{them}", phrase.them) for question in column.phrases.get(name, ())]
    if phrase.is_long:
        own = [q for q in own if q.endswith(phrase.them)]
    noun = s.noun(column) if is_time or name == "total" else quantity(s.noun(column))
    return ask(phrase, IN_TIME[name] if is_time else name, query, noun, own, col=noun)


# ---- groups
def _grouped(s: Speaker, table: Table, avoid=()) -> tuple[Column, NounPhrase, dict[str, str]] | None:
    group = pick(s, table, is_grouping)
    if not group:
        return None
    phrase = rows_of(s, table, (0, 0, 0, 0, 1, 1), [group, *avoid])
    noun, own = s.noun(group), group.phrases.get("each", ())
    each = s.rng.choice(own if own and s.rng.random() < 0.6 else ("per {g}", "for each {g}", "by {g}", "for every {g}"))
    return group, phrase, {"g": noun, "g_s": s.nouns(group), "each": each.replace("{g}", noun)}


def group_count(s: Speaker, table: Table) -> Asked | None:
    if not (made := _grouped(s, table)):
        return None
    group, phrase, slots = made
    query = about(phrase, [Ref(table, group), "COUNT(*)"], group=Ref(table, group))
    return ask(phrase, "group_count", query, **slots)


def group_aggregate(s: Speaker, table: Table) -> Asked | None:
    name = s.rng.choice(("average", "average", "total", "total", "highest", "lowest"))
    column = pick(s, table, is_summed if name == "total" else is_measure)
    if not column or not (made := _grouped(s, table, [column])):
        return None
    group, phrase, slots = made
    [form] = FORMS[name]
    query = about(phrase, [Ref(table, group), Ref(table, column, form)], group=Ref(table, group))
    noun = s.noun(column) if name == "total" else quantity(s.noun(column))
    return ask(phrase, "group_agg", query, noun, agg=s.rng.choice(ADJECTIVES[name]), col=noun, **slots)


def compared_count(s: Speaker) -> tuple[str, str]:
    """("more than three", "COUNT(*) > 3")."""
    operator, n = s.rng.choices(list(COMPARED), (5, 5, 3, 1))[0], s.rng.randint(2, 9)
    return s.rng.choice(COMPARED[operator]).replace("{n}", s.number(n)), f"COUNT(*) {operator} {n}"


def having(s: Speaker, table: Table) -> Asked | None:
    if not (made := _grouped(s, table)):
        return None
    group, phrase, slots = made
    slots["cmp"], condition = compared_count(s)
    return ask(phrase, "having", about(phrase, [Ref(table, group)], group=Ref(table, group), having=condition), **slots)


def common(s: Speaker, table: Table) -> Asked | None:
    """The value that most rows have, or fewest."""
    if not (made := _grouped(s, table)):
        return None
    group, phrase, slots = made
    down = s.rng.random() < 0.75
    slots |= {"often": "most" if down else "fewest", "common": "most common" if down else "least common"}
    query = about(phrase, [Ref(table, group)], group=Ref(table, group), order="COUNT(*)", descending=down, limit=1)
    return ask(phrase, "common", query, **slots)
