"""The schemas that people wrote (data/text_to_sql/domains, a file for each domain), with the words people use for them.

Domains are split, not questions: no schema of validation or test has a relative in training.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path

import yaml

DATA = Path(__file__).resolve().parents[2] / "data" / "text_to_sql"
FOLDER = DATA / "domains"
HELD_OUT = {
    "validation": ("elections", "farm", "gym", "insurance", "space_missions", "tv_series", "winter_sports"),
    "test": ("athletics", "bug_tracker", "geography", "hotel", "museum", "real_estate", "veterinary", "warehouse"),
}
Phrases = dict[str, tuple[str, ...]]  # what they are for ("more", "ask", ...) -> phrases with one slot each


@dataclass(frozen=True)
class Column:
    """A column and how people speak of it. `values` are texts, a pool's name, or the first and last of a range.

    `parent` is the table that a foreign key points to; `few`: values repeat; `maybe`: it may be NULL.
    """

    name: str
    type: str = "TEXT"  # or INTEGER, REAL, DATE
    values: tuple | str = ()
    step: float | None = None
    nouns: tuple[str, ...] = ()
    phrases: Phrases = field(default_factory=dict, compare=False)
    label: bool = False  # it names its row: "which films" asks for it
    key: bool = False
    parent: str = ""
    adjective: bool = False  # a value can stand before the noun: "comedy films"
    few: bool = False
    maybe: bool = False

    @property
    def is_asked(self) -> bool:
        return not self.key and not self.parent

    @property
    def is_number(self) -> bool:
        return self.type in ("INTEGER", "REAL") and self.is_asked

    @property
    def is_measure(self) -> bool:
        """Whether it is compared, added up or averaged. A floor or a lane is a number that names, and so is a year."""
        spoken_of = any(use in self.phrases for use in ("average", "total", "most", "least"))
        names = self.type == "INTEGER" and "is" in self.phrases and not spoken_of
        return self.is_number and not (self.label or self.is_year or names)

    @property
    def is_year(self) -> bool:
        return self.type == "INTEGER" and self.is_number and 1200 <= self.values[0] and self.values[1] <= 2100


@dataclass(frozen=True)
class Table:
    name: str
    one: str  # "film"
    many: tuple[str, ...]  # "films", "movies"
    columns: tuple[Column, ...]
    people: bool = False  # "who is the oldest driver?"

    @property
    def label(self) -> Column:
        return next(c for c in self.columns if c.label)

    @property
    def key(self) -> Column | None:
        return next((c for c in self.columns if c.key), None)


@dataclass(frozen=True)
class Schema:
    """Tables by their names, in the order in which they are declared."""

    domain: str
    tables: dict[str, Table]


def split_of(domain: str) -> str:
    """ "train", "validation" or "test"."""
    return next((split for split, domains in HELD_OUT.items() if domain in domains), "train")


@cache
def schemas(split: str) -> tuple[Schema, ...]:
    """All schemas of a split's domains."""
    files = sorted(FOLDER.glob("*.yaml"))
    return tuple(schema for file in files if split_of(file.stem) == split for schema in _read(file))


def _read(file: Path) -> list[Schema]:
    written = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return [
        Schema(written["domain"], {name: _table(name, table) for name, table in schema["tables"].items()})
        for schema in written["schemas"]
    ]


def _table(name: str, written: dict) -> Table:
    columns = tuple(_column(column, entries) for column, entries in written["columns"].items())
    many = (written["many"], *written.get("aka", ()))
    columns = tuple(_named_apart(c, written["one"], many) if c.label else c for c in columns)
    return Table(name, written["one"], many, columns, bool(written.get("people")))


def _named_apart(label: Column, one: str, many: tuple[str, ...]) -> Column:
    """The label without nouns that mean the row itself: "the films of the films", "the film titles of the films"."""
    apart = [noun for noun in label.nouns if noun != one and f"{noun}s" not in many]
    nouns = dict.fromkeys(noun.removeprefix(f"{one} ") for noun in apart)
    return replace(label, nouns=tuple(nouns) or ("name",))


def _column(name: str, written: dict) -> Column:
    values = written.get("values", ())
    phrases = {
        key: tuple(value) for key, value in written.items() if isinstance(value, list) and key not in ("values", "say")
    }
    return Column(
        name,
        "INTEGER" if written.get("key") or "to" in written else written.get("type", "TEXT"),
        values if isinstance(values, str) else tuple(v if not isinstance(v, date) else str(v) for v in values),
        written.get("step"),
        tuple(written.get("say", ())) or (spoken(name),),
        phrases,
        **{flag: bool(written.get(flag)) for flag in ("label", "key", "few", "maybe")},
        parent=written.get("to", ""),
        adjective=bool(written.get("adj")),
    )


def spoken(name: str) -> str:
    """A name as words: "built_year", "builtYear" -> "built year"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower()
