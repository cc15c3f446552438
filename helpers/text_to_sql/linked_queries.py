"""Kinds of query over linked tables: a function for each draws SQL and words."""

from __future__ import annotations

from helpers.text_to_sql.asked import (
    Asked,
    about,
    ask,
    has_names,
    is_other,
    label_slots,
    pick,
    predicated,
    projection,
    rows_of,
)
from helpers.text_to_sql.domains import Column, Table
from helpers.text_to_sql.group_queries import compared_count
from helpers.text_to_sql.noun_phrases import (
    NounPhrase,
    draw_row,
    go_together,
    nested,
    noun_phrase,
    of_parent,
    without_children,
)
from helpers.text_to_sql.noun_phrases import with_children as with_children_phrase
from helpers.text_to_sql.sql import Query, Ref, linked
from helpers.text_to_sql.wording import Speaker, in_plural, phrasings


def _links(s: Speaker, table: Table) -> list[Column]:
    """The table's foreign keys, the order left to chance."""
    links = [c for c in table.columns if c.parent in s.schema.tables]
    return s.rng.sample(links, len(links))


def _child(s: Speaker, parent: Table) -> tuple[Table, Column] | None:
    """A table with a foreign key to this one, and that key."""
    links = linked(s.schema.tables.values(), parent)
    return s.rng.choice(links) if links else None


def columns_of_both(s: Speaker, table: Table) -> Asked | None:
    """Columns of a row and of its parent, or of both of its parents."""
    if not (links := _links(s, table)):
        return None
    refs, nouns, plurals = projection(s, table, 2)
    own = [r.column for r in refs]
    both = len(links) > 1 and s.rng.random() < 0.4
    for link in links[: 1 + both]:
        parent = s.schema.tables[link.parent]
        column = pick(s, parent)
        noun = _noun_of_parent(s, parent, column)
        nouns, plurals = _with_last(nouns, noun), _with_last(plurals, in_plural(noun))
        refs.append(Ref(parent, column))
    phrase = rows_of(s, table, (0, 1, 1), own)
    return ask(phrase, "columns", about(phrase, refs), nouns, cols=nouns, cols_s=plurals)


def _noun_of_parent(s: Speaker, parent: Table, column: Column) -> str:
    """ "customer", "customer city"."""
    noun = s.noun(column)
    if column.label and s.rng.random() < 0.5:
        return parent.one
    return noun if parent.one in noun else f"{parent.one} {noun}"


def _with_last(nouns: str, noun: str) -> str:
    """ "price", "title and price" -> "title, price and customer"."""
    return f"{nouns.replace(' and ', ', ')} and {noun}"


def ask_parent(s: Speaker, table: Table) -> Asked | None:
    """Which parent a row has, or another column of its parent."""
    if not (links := _links(s, table)):
        return None
    link, *_ = links
    parent = s.schema.tables[link.parent]
    row = draw_row(s, table)
    column = pick(s, parent, is_other)
    if not column or s.rng.random() < 0.45:
        own = [question.replace("{x}", row.value) for question in link.phrases["asks"]]
        return Asked(Query([Ref(parent, parent.label)], [table], [row.ref]), "", own=own)
    possessor = s.rng.choice(phrasings()["parent_of"]).replace("{parent}", parent.one).replace("{x}", row.text)
    noun = s.noun(column)
    slots = {"col": noun, "x": possessor}
    return Asked(Query([Ref(parent, column)], [table], [row.ref]), "ask_parent", slots, noun)


def count_of_parent(s: Speaker, table: Table) -> Asked | None:
    if not (made := _child(s, table)):
        return None
    child, link = made
    row = draw_row(s, table)
    own = [question.replace("{p}", row.text) for question in link.phrases["count"]]
    return Asked(Query(["COUNT(*)"], [child, table], [row.ref]), "", own=own)


def with_children(s: Speaker, table: Table) -> Asked | None:
    """Rows that have linked rows of some kind, each once; or that have none."""
    if not (made := _child(s, table)):
        return None
    child, link = made
    if s.rng.random() < 0.35:
        condition = without_children(s, table, child, link)
    else:
        condition = with_children_phrase(s, table, child, link)
    if not condition:
        return None
    phrase = NounPhrase(table, s.many(table), [condition])
    query = about(phrase, [Ref(table, table.label)], distinct=condition.kind != "subquery")
    return predicated(s, ask(phrase, "which", query, **label_slots(s, table)), phrase, "which_pred")


def across_three(s: Speaker, table: Table) -> Asked | None:
    """Rows of one table by a name in another that is two links away, or by the names of two parents."""
    if not (links := _links(s, table)):
        return None
    link, *others = links
    parent = s.schema.tables[link.parent]
    onward = others or _links(s, parent)
    if not onward:
        return None
    far, rows = of_parent(s, onward[0], 0), table
    if not others:  # "tickets of releases of the product Atlas"
        by = s.rng.choice(link.phrases["by"])
        conditions = [nested(by, "{p}", NounPhrase(parent, s.many(parent), [far]))]
    elif s.rng.random() < 0.5:  # "readers who borrowed books by Ann Lee"
        has = s.rng.choice(link.phrases["has"])
        conditions, rows = [nested(has, "{c}", NounPhrase(table, s.many(table), [far]))], parent
    else:
        conditions = [far, of_parent(s, link, 0)]
        if not go_together(*conditions):
            return None
    phrase = NounPhrase(rows, s.many(rows), conditions)
    if rows is table and s.rng.random() < 0.5:
        return predicated(s, ask(phrase, "count", about(phrase, ["COUNT(*)"])), phrase, "count_pred")
    query = about(phrase, [Ref(rows, rows.label)], distinct=rows is parent)
    return predicated(s, ask(phrase, "which", query, **label_slots(s, rows)), phrase, "which_pred")


def children_of_each(s: Speaker, table: Table) -> Asked | None:
    """Linked rows counted for each row: all of them, the most, or enough."""
    if not (made := _child(s, table)):
        return None
    child, _ = made
    phrase = noun_phrase(s, child, s.rng.choice((0, 0, 1)), links=0.4, away_from=table)
    group = Ref(table, table.label)
    slots = {"children": phrase.them, "parent": table.one, "parents": s.many(table)}
    way = s.rng.choice(("parent_count", "parent_count", "parent_most", "parent_having"))
    query = Query([group], [table, *phrase.tables], phrase.where, phrase.either, group=group)
    if way == "parent_count":
        query.select.append("COUNT(*)")
    elif way == "parent_most":
        down = s.rng.random() < 0.75
        slots["often"] = "most" if down else "fewest"
        query.order, query.descending, query.limit = "COUNT(*)", down, 1
    else:
        slots["cmp"], query.having = compared_count(s)
    asked = ask(phrase, way, query, **slots)
    asked.has_names = has_names(table)
    return asked
