"""Noun phrases: "comedy films from Norway that run over 120 minutes", and the conditions in SQL that they mean."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache

import yaml

from helpers.text_to_sql.domains import DATA, Column, Schema, Table
from helpers.text_to_sql.names import plural
from helpers.text_to_sql.sql import Ref, linked, literal
from helpers.text_to_sql.values import draw_date, draw_number, draw_text

OWN_SHARE = 0.75  # how often a column's own phrases are taken, where it has any
MONTHS = "January February March April May June July August September October November December".split()
RELATIVE = ("that ", "who ")  # begins a phrase whose verb is in the plural


@cache
def phrasings() -> dict[str, list[str]]:
    """Kind of query, or of condition -> templates."""
    return yaml.safe_load((DATA / "phrasings.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Condition:
    """What a phrase after the noun (or an adjective before it) means in SQL; `kind` where it is a special one."""

    ref: Ref
    phrase: str
    kind: str = ""
    adjective: str = ""
    tables: tuple[Table, ...] = ()  # that it needs beside its column's own
    more: tuple[Ref, ...] = ()  # further conditions that the same phrase holds

    @property
    def is_relative(self) -> bool:
        return self.phrase.startswith(RELATIVE)

    @property
    def refs(self) -> tuple[Ref, ...]:
        return (self.ref, *self.more)


@dataclass
class NounPhrase:
    """Rows of a table that meet conditions, as words and as SQL."""

    table: Table
    many: str
    conditions: list[Condition] = field(default_factory=list)
    either: bool = False

    @property
    def adjectives(self) -> list[str]:
        return [c.adjective for c in self.conditions if c.adjective]

    @property
    def after(self) -> str:
        """What follows the noun: phrases with a verb last."""
        phrases = sorted((c for c in self.conditions if not c.adjective), key=lambda c: c.is_relative)
        if not phrases:
            return ""
        if self.either:
            return " " + " or ".join(c.phrase for c in phrases)
        text = phrases[0].phrase
        for before, c in zip(phrases, phrases[1:]):
            both = before.is_relative and c.is_relative
            text += (
                " and " + c.phrase.split(" ", 1)[1] if both else " " + c.phrase if c.is_relative else " and " + c.phrase
            )
        return " " + text

    @property
    def them(self) -> str:
        return " ".join([*self.adjectives, self.many]) + self.after

    @property
    def one(self) -> str:
        return " ".join([*self.adjectives, self.table.one]) + self.after

    @property
    def where(self) -> list[Ref]:
        return [ref for c in self.conditions for ref in c.refs]

    @property
    def tables(self) -> list[Table]:
        return [self.table, *(t for c in self.conditions for t in c.tables)]

    @property
    def kinds(self) -> set[str]:
        return {c.kind for c in self.conditions if c.kind}


class Speaker:
    """Draws words and values for one schema."""

    def __init__(self, rng: random.Random, schema: Schema, training: bool):
        self.rng, self.schema, self.training = rng, schema, training

    # ---- words
    def phrase(self, column: Column, use: str, generic: str) -> str:
        """One of the column's own phrases for this use, or of everybody's."""
        own = column.phrases.get(use, ())
        if own and (self.rng.random() < OWN_SHARE or not phrasings().get(generic)):
            return self.rng.choice(own)
        return self.rng.choice(phrasings()[generic]).replace("{say}", self.noun(column))

    def noun(self, column: Column) -> str:
        """The plainest noun half of the time."""
        return column.nouns[0] if self.rng.random() < 0.5 else self.rng.choice(column.nouns)

    def nouns(self, column: Column) -> str:
        noun = self.noun(column)
        whole = re.search(r" (of|per|to|in|on|at|for) ", noun) or noun.endswith("s")
        return noun if whole else plural(noun)

    def many(self, table: Table) -> str:
        return table.many[0] if self.rng.random() < 0.7 else self.rng.choice(table.many)

    def day(self, day) -> str:
        """A date as people write it; more often than not as the table does."""
        month = MONTHS[day.month - 1]
        return self.rng.choice([str(day)] * 3 + [f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}"])

    # ---- conditions
    def condition(self, table: Table, column: Column) -> Condition | None:
        rng = self.rng
        if column.maybe and rng.random() < 0.4:
            return self._null(table, column)
        if column.type == "TEXT":
            return self._text(table, column)
        if column.type == "DATE":
            return self._date(table, column)
        return None if column.label else self._number(table, column)

    def _null(self, table: Table, column: Column) -> Condition:
        null = self.rng.random() < 0.55
        use, generic, sql = ("null", "is_null", "IS NULL") if null else ("given", "not_null", "IS NOT NULL")
        return Condition(Ref(table, column, f"{{c}} {sql}"), self.phrase(column, use, generic), "null")

    def _text(self, table: Table, column: Column) -> Condition | None:
        rng, value = self.rng, draw_text(self.rng, column, self.training)
        if column.label or rng.random() < 0.04:
            return self._like(table, column, value)
        way = rng.choices(("eq", "ne", "or", "in", "not in"), (72, 9, 7, 6, 6))[0]
        if way == "eq":
            form = f"{{c}} = {literal(value)}"
            if column.adjective and rng.random() < 0.5:
                return Condition(Ref(table, column, form), "", adjective=value)
            return Condition(Ref(table, column, form), self.phrase(column, "is", "eq").replace("{v}", value))
        if way == "ne":
            phrase = self.phrase(column, "isnt", "ne").replace("{v}", value)
            return Condition(Ref(table, column, f"{{c}} != {literal(value)}"), phrase)
        values = list(dict.fromkeys([value, *(draw_text(rng, column, self.training) for _ in range(3))]))
        values = values[: 2 if way == "or" else rng.choice((2, 3, 3))]
        if len(values) < 2 or any("," in v or " and " in v for v in values):
            return None
        joined = f"{', '.join(values[:-1])} or {values[-1]}"
        if way == "not in":
            phrase = self.phrase(column, "isnt", "not_in").replace("{v}", joined).replace("{list}", joined)
            listed = ", ".join(map(literal, values))
            return Condition(Ref(table, column, f"{{c}} NOT IN ({listed})"), phrase, "not in")
        phrase = self.phrase(column, "is", "in_list").replace("{v}", joined).replace("{list}", joined)
        if len(values) == 2:
            form = " OR ".join(f"{{c}} = {literal(v)}" for v in values)
            return Condition(Ref(table, column, form), phrase, "or")
        return Condition(Ref(table, column, f"{{c}} IN ({', '.join(map(literal, values))})"), phrase, "in")

    def _like(self, table: Table, column: Column, value: str) -> Condition | None:
        rng, words = self.rng, [w for w in re.findall(r"[^\W\d_]{3,}", value)]
        if not words:
            return None
        way = rng.choice(("starts", "ends", "contains", "contains"))
        part = {
            "starts": value[: rng.choice((1, 1, 2, 3))] if rng.random() < 0.6 else words[0],
            "ends": value[-rng.choice((2, 3)) :] if rng.random() < 0.5 else words[-1],
            "contains": rng.choice(words),
        }[way].strip()
        if not part.isalnum():
            return None
        pattern = {"starts": f"{part}%", "ends": f"%{part}", "contains": f"%{part}%"}[way]
        phrase = rng.choice(phrasings()[way]).replace("{say}", self.noun(column)).replace("{v}", part)
        return Condition(Ref(table, column, f"{{c}} LIKE {literal(pattern)}"), phrase, "like")

    def _number(self, table: Table, column: Column) -> Condition | None:
        rng, value = self.rng, draw_number(self.rng, column)
        can_equal = column.type == "INTEGER"
        way = rng.choices(
            ("gt", "lt", "ge", "le", "between", "eq", "above"), (30, 24, 11, 8, 10, 13 if can_equal else 0, 3)
        )[0]
        if way == "above":
            form = f"{{c}} > (SELECT AVG({column.name}) FROM {table.name})"
            phrase = rng.choice(phrasings()["above"]).replace("{say}", self.noun(column))
            return Condition(Ref(table, column, form), phrase, "subquery")
        if way == "between":
            low, high = sorted((value, draw_number(rng, column)))
            if low == high:
                return None
            phrase = self._derived(column, "is", "{v}", "between {a} and {b}") or rng.choice(phrasings()["between"])
            phrase = phrase.replace("in between", "between").replace("{say}", self.noun(column))
            phrase = phrase.replace("{a}", str(low)).replace("{b}", str(high))
            return Condition(Ref(table, column, f"{{c}} BETWEEN {low} AND {high}"), phrase)
        if way == "eq":
            phrase = self.phrase(column, "is", "eq").replace("{v}", str(value))
            return Condition(Ref(table, column, f"{{c}} = {value}"), phrase)
        operator = {"gt": ">", "lt": "<", "ge": ">=", "le": "<="}[way]
        use = "more" if way in ("gt", "ge") else "less"
        if way in ("gt", "lt"):
            phrase = self.phrase(column, use, way)
        else:
            same = r"(more than|over) \{v\}" if way == "ge" else r"(less than|fewer than|under) \{v\}"
            instead = rng.choice(
                ("at least {v}", "{v} or more") if way == "ge" else ("at most {v}", "no more than {v}")
            )
            phrase = self._derived(column, use, same, instead) or rng.choice(phrasings()[way])
            phrase = phrase.replace("{say}", self.noun(column))
        return Condition(Ref(table, column, f"{{c}} {operator} {value}"), phrase.replace("{v}", str(value)))

    def _derived(self, column: Column, use: str, pattern: str, instead: str) -> str | None:
        """A phrase of the column's with a piece replaced: "over {v} kg" -> "at least {v} kg"."""
        pattern = re.escape(pattern) if pattern == "{v}" else pattern
        made = [re.sub(pattern, instead, p) for p in column.phrases.get(use, ()) if re.search(pattern, p)]
        made = [p for p in made if "exactly" not in p]
        return self.rng.choice(made) if made and self.rng.random() < OWN_SHARE else None

    def _date(self, table: Table, column: Column) -> Condition:
        rng, day = self.rng, draw_date(self.rng, column)
        way = rng.choices(("after", "before", "year", "month", "on", "between"), (26, 24, 24, 8, 9, 9))[0]
        if way in ("after", "before"):
            use, operator = ("more", ">") if way == "after" else ("less", "<")
            phrase = self.phrase(column, use, way).replace("{v}", self.day(day))
            return Condition(Ref(table, column, f"{{c}} {operator} '{day}'"), phrase, "date")
        if way in ("year", "month"):
            said = str(day.year) if way == "year" else f"{MONTHS[day.month - 1]} {day.year}"
            pattern = f"{day.year}%" if way == "year" else f"{day:%Y-%m}%"
            phrase = self.phrase(column, "in", "in_year").replace("{v}", said)
            return Condition(Ref(table, column, f"{{c}} LIKE '{pattern}'"), phrase, "date")
        if way == "on":
            phrase = self.phrase(column, "is", "on").replace("{v}", self.day(day))
            return Condition(Ref(table, column, f"{{c}} = '{day}'"), phrase, "date")
        later = day + timedelta(days=rng.choice((30, 90, 365, 700)))
        phrase = self._derived(column, "in", r"in \{v\}", "between {a} and {b}") or rng.choice(phrasings()["between"])
        phrase = phrase.replace("{say}", self.noun(column)).replace("{a}", str(day)).replace("{b}", str(later))
        return Condition(Ref(table, column, f"{{c}} BETWEEN '{day}' AND '{later}'"), phrase, "date")

    # ---- links
    def name_of(self, table: Table) -> tuple[str, Ref]:
        """(a row's name as spoken, the condition that picks it)."""
        label = table.label
        value = (
            draw_number(self.rng, label, False)
            if label.type == "INTEGER"
            else draw_text(self.rng, label, self.training)
        )
        text = f"{table.one} {value}" if label.type == "INTEGER" else str(value)
        return text, Ref(table, label, f"{{c}} = {literal(value)}")

    def of_parent(self, child: Table, link: Column, count: int = 1) -> Condition | None:
        """ "placed by Ann Lee", "placed by customers from Oslo"."""
        parent = self.schema.tables[link.parent]
        by = self.rng.choice(link.phrases["by"])
        if count == 0 or self.rng.random() < 0.45:
            text, ref = self.name_of(parent)
            return Condition(ref, by.replace("{p}", text), tables=(parent,))
        phrase = self.noun_phrase(parent, count, links=0.5, avoid=())
        if not phrase.conditions:
            return None
        first, *others = phrase.where
        return Condition(first, by.replace("{p}", phrase.them), "", "", tuple(phrase.tables), tuple(others))

    def with_children(self, parent: Table, child: Table, link: Column) -> Condition | None:
        """ "who ordered orders over 100"."""
        phrase = self.noun_phrase(child, 1, links=0.6, avoid=(), away_from=parent)
        if not phrase.conditions:
            return None
        first, *others = phrase.where
        text = self.rng.choice(link.phrases["has"]).replace("{c}", phrase.them)
        return Condition(first, text, "", "", tuple(phrase.tables), tuple(others))

    def without_children(self, parent: Table, child: Table, link: Column) -> Condition:
        form = f"{{c}} NOT IN (SELECT {link.name} FROM {child.name})"
        return Condition(Ref(parent, parent.key, form), self.rng.choice(link.phrases["hasnt"]), "subquery")

    # ---- the phrase
    def noun_phrase(
        self,
        table: Table,
        count: int,
        *,
        links: float,
        avoid: tuple[Column, ...] = (),
        singular: bool = False,
        away_from: Table | None = None,
    ) -> NounPhrase:
        """Rows of a table under about `count` conditions; with chance `links` one of them is about the row's parent.

        `singular`: the phrase will stand with a noun in the singular; `away_from`: a table that it must not lead to.
        """
        rng, conditions = self.rng, []
        parents = [c for c in table.columns if c.parent in self.schema.tables]
        parents = [c for c in parents if not away_from or c.parent != away_from.name]
        if count and parents and rng.random() < links:
            both = len(parents) > 1 and rng.random() < 0.3
            for link in rng.sample(parents, 1 + both):
                conditions.append(self.of_parent(table, link, rng.choice((0, 1, 1))))
        columns = [c for c in table.columns if c.is_asked and c not in avoid and (not c.label or rng.random() < 0.06)]
        for column in rng.sample(columns, min(len(columns), max(0, count - len(conditions)))):
            for _ in range(4):
                condition = self.condition(table, column)
                if condition and not (singular and condition.is_relative):
                    conditions.append(condition)
                    break
        conditions = [c for c in conditions if c and not (singular and c.is_relative)]
        if sum(bool(c.adjective) for c in conditions) > 1:
            conditions = [c for i, c in enumerate(conditions) if not c.adjective or i == 0]
        either = len(conditions) == 2 and rng.random() < 0.12 and self._can_be_either(conditions)
        if not either:  # OR binds weaker than AND
            alone = sum(len(c.refs) for c in conditions) == 1
            conditions = [c if alone or c.kind != "or" else self._as_list(c) for c in conditions]
        return NounPhrase(table, self.many(table), conditions, either)

    def _can_be_either(self, conditions: list[Condition]) -> bool:
        plain = all(not c.adjective and not c.more and not c.tables and c.kind != "null" for c in conditions)
        return plain and conditions[0].is_relative == conditions[1].is_relative

    def _as_list(self, condition: Condition) -> Condition:
        values = ", ".join(part.split(" = ", 1)[1] for part in condition.ref.form.split(" OR "))
        return replace(condition, ref=replace(condition.ref, form=f"{{c}} IN ({values})"), kind="in")
