"""Noun phrases: "comedy films from Norway that run over 120 minutes", and the conditions in SQL that they mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from helpers.text_to_sql.asked_conditions import CLAUSES, LIGHT, Condition, as_list, is_plain
from helpers.text_to_sql.column_conditions import draw_condition
from helpers.text_to_sql.domains import Column, Table
from helpers.text_to_sql.sql import Ref, literal
from helpers.text_to_sql.values import draw_number, draw_text
from helpers.text_to_sql.wording import Speaker

LONG = 5  # words after the noun: nothing should follow more of them in the same breath


@dataclass
class NounPhrase:
    """Rows of a table that meet conditions, as words and as SQL; the conditions stand in the order of the words."""

    table: Table
    many: str
    conditions: list[Condition] = field(default_factory=list)
    either: bool = False

    @property
    def adjectives(self) -> list[str]:
        return [c.adjective for c in self.conditions if c.adjective]

    @property
    def after(self) -> str:
        """What follows the noun, with the space before it."""
        phrases = [c for c in self.conditions if not c.adjective]
        if self.either:
            return " " + " or ".join(c.phrase for c in phrases)
        text = "".join([f" {c.phrase}" for c in phrases[:1]] + [_linked(a, b) for a, b in pairwise(phrases)])
        return text if any(c.is_clause for c in phrases) or len(phrases) < 3 else _with_comma(text, phrases)

    @property
    def them(self) -> str:
        return " ".join([*self.adjectives, self.many]) + self.after

    @property
    def one(self) -> str:
        return " ".join([*self.adjectives, self.table.one]) + self.after

    @property
    def is_long(self) -> bool:
        return len(self.after.split()) > LONG or any(c.is_clause or c.is_nested for c in self.conditions)

    @property
    def where(self) -> list[Ref]:
        return [ref for c in self.conditions for ref in c.refs]

    @property
    def tables(self) -> list[Table]:
        return [self.table, *(t for c in self.conditions for t in c.tables)]

    @property
    def kinds(self) -> set[str]:
        return {c.kind for c in self.conditions if c.kind}


def _linked(before: Condition, after: Condition) -> str:
    """A phrase as it follows another: " and with ...", " that ..."."""
    if before.is_clause:
        shared = after.predicate if before.opening == after.opening else ""
        return f" and {shared or after.phrase}"
    apart = after.is_clause or (before.opening in LIGHT and after.opening != before.opening)
    return f" {after.phrase}" if apart else f" and {after.phrase}"


def _with_comma(text: str, phrases: list[Condition]) -> str:
    """ "over 12 m and built in 2015 and without windows" with a comma for the first "and"."""
    joint = f" and {phrases[1].phrase} and "
    return text.replace(joint, f", {joint[5:]}")


def _place(condition: Condition) -> int:
    """Where a phrase stands: adjectives, "from Oslo", "with two doors", "made by firms from Oslo", "that cost 5"."""
    if condition.adjective:
        return 0
    if condition.is_clause:
        return 4 + CLAUSES.index(condition.opening)
    return 3 if condition.is_nested else 1 if condition.opening in LIGHT else 2


# ---- links
@dataclass(frozen=True)
class Row:
    """One row by its label: the value, the value with a noun where it is a number, and the condition that picks it."""

    value: str
    text: str
    ref: Ref


def draw_row(s: Speaker, table: Table) -> Row:
    label = table.label
    number = label.type == "INTEGER"
    value = draw_number(s.rng, label, False) if number else draw_text(s.rng, label, s.training)
    return Row(str(value), f"{table.one} {value}" if number else value, Ref(table, label, f"{{c}} = {literal(value)}"))


def of_parent(s: Speaker, link: Column, count: int = 1) -> Condition | None:
    """ "placed by Ann Lee", "placed by customers from Oslo"."""
    parent = s.schema.tables[link.parent]
    by = s.rng.choice(link.phrases["by"])
    if count == 0 or s.rng.random() < 0.45:
        row = draw_row(s, parent)
        return Condition(row.ref, by.replace("{p}", row.text), tables=(parent,))
    return nested(by, "{p}", noun_phrase(s, parent, count, links=0.5))


def with_children(s: Speaker, parent: Table, child: Table, link: Column) -> Condition | None:
    """ "who ordered orders over 100"."""
    has = s.rng.choice(link.phrases["has"])
    return nested(has, "{c}", noun_phrase(s, child, 1, links=0.6, away_from=parent))


def nested(template: str, slot: str, phrase: NounPhrase) -> Condition | None:
    """A condition that holds a noun phrase: "who ordered {c}" and "orders over 100"."""
    if not phrase.conditions or phrase.either:
        return None
    first, *others = [ref for c in phrase.conditions for ref in as_list(c).refs]
    text = template.replace(slot, phrase.them)
    return Condition(first, text, "", "", tuple(phrase.tables), tuple(others), is_nested=True)


def without_children(s: Speaker, parent: Table, child: Table, link: Column) -> Condition:
    """ "who never ordered anything"."""
    form = f"{{c}} NOT IN (SELECT {link.name} FROM {child.name})"
    return Condition(Ref(parent, parent.key, form), s.rng.choice(link.phrases["hasnt"]), "subquery")


# ---- the phrase
def noun_phrase(
    s: Speaker,
    table: Table,
    count: int,
    *,
    links: float,
    avoid: tuple[Column, ...] = (),
    singular: bool = False,
    away_from: Table | None = None,
) -> NounPhrase:
    """Rows of a table under at most `count` conditions; with chance `links` one of them is about the row's parent.

    `singular`: the phrase will stand with a noun in the singular; `away_from`: a table that it must not lead to.
    """
    drawn = _drawn(s, table, count, links, avoid, away_from)
    conditions: list[Condition] = []
    for condition in drawn:
        if not (singular and condition.is_relative) and all(go_together(condition, c) for c in conditions):
            conditions.append(condition)
    either = len(conditions) == 2 and s.rng.random() < 0.12 and _can_be_either(*conditions)
    if not either and sum(len(c.refs) for c in conditions) > 1:
        conditions = [as_list(c) for c in conditions]
    return NounPhrase(table, s.many(table), sorted(conditions, key=_place), either)


def _drawn(
    s: Speaker, table: Table, count: int, links: float, avoid: tuple[Column, ...], away_from: Table | None
) -> list[Condition]:
    parents = [c for c in table.columns if c.parent in s.schema.tables]
    parents = [c for c in parents if not away_from or c.parent != away_from.name]
    drawn: list[Condition | None] = []
    if count and parents and s.rng.random() < links:
        both = len(parents) > 1 and s.rng.random() < 0.4
        counts = (0,) if both else (0, 1, 1)  # two parents are named
        drawn += [of_parent(s, link, s.rng.choice(counts)) for link in s.rng.sample(parents, 1 + both)]
    columns = [c for c in table.columns if c.is_asked and c not in avoid and (not c.label or s.rng.random() < 0.06)]
    for column in s.rng.sample(columns, min(len(columns), max(0, count - len(drawn)))):
        tries = (draw_condition(s, table, column) for _ in range(4))
        drawn.append(next((condition for condition in tries if condition), None))
    return [condition for condition in drawn if condition]


def go_together(a: Condition, b: Condition) -> bool:
    """Whether it stays plain, when both phrases stand after one noun, what each of them is about."""
    if a.adjective and b.adjective:
        return False
    if a.opening == b.opening and a.opening in LIGHT:  # "in Oslo in oil"
        return False
    if not (a.is_nested or b.is_nested):
        return True
    # What follows "by painters from Oslo" would seem to be about painters.
    inner, other = (a, b) if a.is_nested else (b, a)
    apart = not (inner.opening in LIGHT or inner.is_clause or other.is_clause or other.is_nested)
    return apart or bool(other.adjective)


def _can_be_either(a: Condition, b: Condition) -> bool:
    return is_plain(a) and is_plain(b) and a.is_clause == b.is_clause
