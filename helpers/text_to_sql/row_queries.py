"""Kinds of query that return rows of one table, or columns of them: a function for each draws SQL and words."""

from __future__ import annotations

from helpers.text_to_sql.asked import (
    FEW,
    Asked,
    about,
    ask,
    has_names,
    is_other,
    is_sortable,
    label_slots,
    pick,
    predicated,
    projection,
    rows_of,
)
from helpers.text_to_sql.domains import Column, Table
from helpers.text_to_sql.noun_phrases import NounPhrase, draw_row
from helpers.text_to_sql.sql import Query, Ref
from helpers.text_to_sql.wording import Speaker, phrasings, quantity


def which(s: Speaker, table: Table) -> Asked:
    """The names of rows."""
    phrase = rows_of(s, table, (1, 1, 1, 1, 2, 2, 0, 3))
    query = about(phrase, [Ref(table, table.label)])
    asked = ask(phrase, "which" if phrase.conditions else "all", query, **label_slots(s, table))
    return predicated(s, asked, phrase, "which_pred")


def columns(s: Speaker, table: Table) -> Asked | None:
    refs, nouns, plurals = projection(s, table, 3)
    if len(refs) == 1 and refs[0].column.label:
        return None
    phrase = rows_of(s, table, (0, 1, 1, 1, 2, 2), avoid=[r.column for r in refs])
    return ask(phrase, "columns", about(phrase, refs), nouns, cols=nouns, cols_s=plurals)


def star(s: Speaker, table: Table) -> Asked | None:
    phrase = rows_of(s, table, (1, 1, 2))
    if any(t.name != table.name for t in phrase.tables):
        return None
    return ask(phrase, "star", about(phrase, ["*"]))


# ---- one row
def _named(s: Speaker, table: Table, select: list, template: str, subject="", own=(), **slots: str) -> Asked:
    """A question about one row that is named."""
    row = draw_row(s, table)
    own = [question.replace("{x}", row.value) for question in own]
    the_row = row.text if table.one.lower() in row.text.lower() else f"{table.one} {row.text}"
    slots |= {"x": row.text, "the_x": f"the {the_row}" if the_row != row.text else row.text, "one": table.one}
    return Asked(Query(select, [table], [row.ref]), template, slots, subject, own)


def star_one(s: Speaker, table: Table) -> Asked:
    return _named(s, table, ["*"], "star_one")


def ask_one(s: Speaker, table: Table) -> Asked | None:
    column = pick(s, table, is_other)
    if not column:
        return None
    noun = s.noun(column)
    return _named(s, table, [Ref(table, column)], "ask_one", noun, column.phrases.get("ask", ()), col=noun)


def ask_two(s: Speaker, table: Table) -> Asked | None:
    refs, nouns, _ = projection(s, table, 3, avoid=(table.label,))
    return _named(s, table, refs, "ask_two", cols=nouns) if len(refs) > 1 else None


# ---- in order
def _order_words(s: Speaker, column: Column, down: bool, many: str) -> str:
    """ "by price, highest first"; with `many`, the rows' noun, it stays plain what a superlative is about."""
    own = [word for word in column.phrases.get("most" if down else "least", ()) if word not in ("first", "last")]
    if own and s.rng.random() < 0.55:
        return " ".join([s.rng.choice(own), *([many] if many else []), "first"])
    kind = "text" if column.type == "TEXT" else "dates" if column.type == "DATE" or column.is_year else "numbers"
    template = s.rng.choice(phrasings()[f"order_{kind}_{'down' if down else 'up'}"])
    return template.replace("{say}", quantity(s.noun(column)) if kind == "numbers" else s.noun(column))


def sorted_rows(s: Speaker, table: Table) -> Asked | None:
    order = pick(s, table, lambda c: is_sortable(c) or (c.type == "TEXT" and s.rng.random() < 0.35))
    if not order:
        return None
    down = s.rng.random() < (0.2 if order.type == "TEXT" else 0.55)
    label = s.rng.random() < 0.5
    refs, nouns, plurals = ([Ref(table, table.label)], "", "") if label else projection(s, table, 2)
    phrase = rows_of(s, table, FEW, avoid=(order, *(r.column for r in refs)))
    query = about(phrase, refs, order=Ref(table, order), descending=down)
    template = "sorted" if label else "sorted_columns"
    slots = {"cols": nouns, "cols_s": plurals, "order": _order_words(s, order, down, "" if label else phrase.many)}
    return ask(phrase, template, query, nouns, **slots, **label_slots(s, table))


def extreme(s: Speaker, table: Table) -> Asked | None:
    """The one row at the top, or the first k."""
    down, k = s.rng.random() < 0.6, s.rng.choice((1, 1, 1, 2, 3, 3, 4, 5, 5, 6, 8, 10))
    order = pick(s, table, is_sortable, lambda c: down or not c.maybe)  # NULL would be the smallest
    if not order:
        return None
    label = s.rng.random() < 0.6
    refs, nouns, plurals = ([Ref(table, table.label)], "", "") if label else projection(s, table, 2)
    if not label and refs[0].column.label and len(refs) == 1:
        return None
    superlatives = order.phrases.get("most" if down else "least", ())
    superlative = s.rng.choice(superlatives) if superlatives and s.rng.random() < 0.8 else ""
    phrase = rows_of(s, table, FEW, [order, *(r.column for r in refs)], singular=k == 1 and bool(superlative))
    best, bests = _at_top(s, phrase, order, down, superlative)
    query = about(phrase, refs, order=Ref(table, order), descending=down, limit=k)
    template = ("best" if k == 1 else "top") + ("" if label else "_columns")
    if template == "best" and table.people and s.rng.random() < 0.5:
        template = "best_person"
    slots = {"best": best, "bests": bests, "k": s.number(k), "cols": nouns, "cols_s": plurals}
    return ask(phrase, template, query, nouns, **slots, **label_slots(s, table))


def _at_top(s: Speaker, phrase: NounPhrase, order: Column, down: bool, superlative: str) -> tuple[str, str]:
    """(the row at the top, the rows): "cheapest film from Norway", "film with the lowest price among those ..."."""
    if superlative:
        after = " ".join([*phrase.adjectives, ""]), phrase.after
        return tuple(f"{superlative} {after[0]}{noun}{after[1]}" for noun in (phrase.table.one, phrase.many))
    is_time = order.type == "DATE" or order.is_year
    kind = ("latest_row" if down else "earliest_row") if is_time else "highest_row" if down else "lowest_row"
    way = s.generic(order, kind)
    among = f" among those{phrase.after}" if phrase.after else ""
    before = " ".join([*phrase.adjectives, ""])
    return tuple(f"{before}{noun} {way}{among}" for noun in (phrase.table.one, phrase.many))


def same_as(s: Speaker, table: Table) -> Asked | None:
    """Rows that share a value with a row that is named."""
    column = pick(s, table, is_other, lambda c: c.type == "TEXT" or c.few or c.is_year)
    if not column:
        return None
    row = draw_row(s, table)
    inner = f"SELECT {column.name} FROM {table.name} WHERE {row.ref.form.replace('{c}', table.label.name)}"
    query = Query([Ref(table, table.label)], [table], [Ref(table, column, f"{{c}} = ({inner})")])
    slots = {"many": s.many(table), "col": s.noun(column), "x": row.text}
    return Asked(query, "same_as", slots, slots["col"], kinds={"subquery"}, has_names=has_names(table))
