"""What a question asks: its query, the templates that word it, and what fills them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from helpers.text_to_sql.domains import Column, Table
from helpers.text_to_sql.noun_phrases import NounPhrase, noun_phrase
from helpers.text_to_sql.sql import Query, Ref
from helpers.text_to_sql.wording import Speaker, in_plural

FEW = (0, 0, 0, 1, 1, 2)  # conditions, where they are not what is asked about


@dataclass
class Asked:
    """A query and its wordings.

    `template`: the list in phrasings.yaml; `subject`: the noun with which its verbs agree; `own`: whole questions that
    a column brings itself; `kinds`: the special conditions in it; `is_long`: whether a noun phrase in it is, so that
    it must stand last; `has_names`: whether its rows have names rather than numbers.
    """

    query: Query
    template: str
    slots: dict[str, str] = field(default_factory=dict)
    subject: str = ""
    own: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    is_long: bool = False
    has_names: bool = True


def ask(phrase: NounPhrase, template: str, query: Query, subject: str = "", own=(), **slots: str) -> Asked:
    """A question about the rows of a noun phrase."""
    slots = {"them": phrase.them, "many": phrase.many, "one": phrase.table.one} | slots
    return Asked(query, template, slots, subject, list(own), phrase.kinds, phrase.is_long, has_names(phrase.table))


def has_names(table: Table) -> bool:
    label = table.label
    texts = label.values if isinstance(label.values, tuple) else ()
    return label.type == "TEXT" and not any(c.isdigit() for text in texts for c in str(text))


def rows_of(
    s: Speaker, table: Table, counts: tuple[int, ...], avoid: Iterable[Column] = (), singular: bool = False
) -> NounPhrase:
    """A noun phrase under one of `counts` conditions; every second one that can is about the row's parent."""
    count = s.rng.choice(counts)
    if s.hard and s.rng.random() < 0.35:
        count = min(3, count + 1)
    return noun_phrase(s, table, count, links=0.5, avoid=tuple(avoid), singular=singular)


def about(phrase: NounPhrase, select: list[Ref | str], **options) -> Query:
    return Query(select, phrase.tables, phrase.where, phrase.either, **options)


def label_slots(s: Speaker, table: Table) -> dict[str, str]:
    """What the rows' names are called: "title", "titles"."""
    return {"label": s.noun(table.label), "labels": s.nouns(table.label)}


def predicated(s: Speaker, asked: Asked, phrase: NounPhrase, template: str) -> Asked:
    """ "which films cost more than 5", where the only condition has a verb for it."""
    [condition] = phrase.conditions if len(phrase.conditions) == 1 else [None]
    if condition and condition.predicate and s.rng.random() < 0.6:
        asked.template, asked.slots["pred"] = template, condition.predicate
    return asked


# ---- columns
def pick(s: Speaker, table: Table, *tests: Callable[[Column], bool]) -> Column | None:
    columns = [c for c in table.columns if c.is_asked and all(test(c) for test in tests)]
    return s.rng.choice(columns) if columns else None


def is_other(c: Column) -> bool:
    """Whether it says more than the row's name."""
    return not c.label


def is_measure(c: Column) -> bool:
    return c.is_measure


def is_summed(c: Column) -> bool:
    return is_measure(c) and (bool(c.phrases.get("total")) or not c.phrases)


def is_sortable(c: Column) -> bool:
    return c.is_measure or c.is_year or c.type == "DATE"


def is_grouping(c: Column) -> bool:
    grouped = c.few or (c.type == "TEXT" and not c.phrases) or "each" in c.phrases
    return grouped and not (c.label or c.is_measure)


def projection(s: Speaker, table: Table, most: int, avoid=()) -> tuple[list[Ref], str, str]:
    """(columns, their nouns, their nouns in the plural)."""
    columns = [c for c in table.columns if c.is_asked and c not in avoid]
    chosen = s.rng.sample(columns, min(len(columns), s.rng.randint(1, most)))
    nouns = [s.noun(c) for c in chosen]
    return [Ref(table, c) for c in chosen], listed(nouns), listed([in_plural(n) for n in nouns])


def listed(nouns: list[str]) -> str:
    return nouns[0] if len(nouns) == 1 else ", ".join(nouns[:-1]) + " and " + nouns[-1]
