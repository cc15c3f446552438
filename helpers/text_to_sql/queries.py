"""Kinds of query, each with a function that draws its SQL and what fills its phrasings, and how often it is asked."""

from __future__ import annotations

from collections.abc import Callable

from helpers.text_to_sql.asked import Asked
from helpers.text_to_sql.domains import Table
from helpers.text_to_sql.group_queries import aggregate, common, count, distinct, group_aggregate, group_count, having
from helpers.text_to_sql.linked_queries import (
    across_three,
    ask_parent,
    children_of_each,
    columns_of_both,
    count_of_parent,
    with_children,
)
from helpers.text_to_sql.row_queries import (
    ask_one,
    ask_two,
    columns,
    extreme,
    same_as,
    sorted_rows,
    star,
    star_one,
    which,
)
from helpers.text_to_sql.wording import Speaker

KINDS: dict[Callable[[Speaker, Table], Asked | None], float] = {
    which: 17,
    columns: 12,
    columns_of_both: 5,
    star: 2,
    star_one: 2,
    ask_one: 9,
    ask_two: 3,
    count: 11,
    distinct: 6,
    aggregate: 13,
    sorted_rows: 6,
    extreme: 12,
    group_count: 5,
    group_aggregate: 5,
    having: 4,
    common: 4,
    ask_parent: 12,
    count_of_parent: 6,
    with_children: 10,
    across_three: 12,  # of those few schemas with three tables
    children_of_each: 8,
    same_as: 1.5,
}
HARD = (columns_of_both, ask_parent, count_of_parent, with_children, across_three, children_of_each)
HARD_KINDS = {ask: share * (2 if ask in HARD else 1) for ask, share in KINDS.items()}  # for training
KIND_OF_TEMPLATE = {
    "all": "which",
    "which_pred": "which",
    "count_pred": "count",
    "best_person": "best",
    "best_columns": "best",
    "top_columns": "top",
    "sorted_columns": "sorted",
    "star_one": "star",
    "ask_two": "ask_one",
    "latest": "highest",
    "earliest": "lowest",
}


def kind_of(asked: Asked, sql: str) -> str:
    """The kind under which results are counted: joins first, then special conditions, then what is asked for."""
    joins, special = sql.count(" JOIN "), sorted(asked.kinds - {"or"})
    if joins > 1:
        return "three tables"
    if special:
        return special[0]
    return "join" if joins else KIND_OF_TEMPLATE.get(asked.template, asked.template)
