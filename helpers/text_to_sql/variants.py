"""Variants of a schema: fewer tables and columns, other spellings of names and types, and rare words as names.

A model that sees the same hundred schemas again and again learns them by heart. What it should learn is to read: which
column a word means, and to copy names that it has never seen.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from helpers.text_to_sql.domains import Column, Schema, Table, schemas, spoken
from helpers.text_to_sql.words import plural, real_words

UNITS = ("kg", "m", "cm", "km", "hours", "days", "pct", "eur", "count", "total", "size", "score")
RARE_SHARE, HARD_RARE_SHARE = 0.35, 0.45  # of the schemas of training, in part, have rare words as names
KEYWORDS = frozenset(
    """add all alter and as asc between by case check column commit constraint create cross current database date
    default delete desc distinct drop else end escape except exists fail first filter for foreign from full glob go
    group groups having if ignore in index inner insert intersect into is isnull join key last left like limit
    match natural no not nothing null of offset on or order others outer over partition plan primary query range
    references regexp release rename replace restrict returning right rollback row rows savepoint select set table
    temp then ties to transaction trigger union unique update using vacuum values view when where window with
    without""".split()
)


@dataclass(frozen=True)
class Style:
    """How a schema spells: the case of its names, the names of its types."""

    case: str
    types: dict[str, str]

    def name(self, name: str) -> str:
        words = spoken(name).split()
        if self.case == "camel":
            return words[0] + "".join(word.title() for word in words[1:])
        return {"upper": str.upper, "title": str.title}.get(self.case, str)("_".join(words) if self.case else name)

    def ddl(self, table: Table) -> str:
        columns = ", ".join(f"{c.name} {self.types[c.type]}" for c in table.columns)
        return f"CREATE TABLE {table.name} ({columns})"


def draw_style(rng: random.Random) -> Style:
    types = {"TEXT": "TEXT", "INTEGER": "INTEGER", "REAL": "REAL", "DATE": rng.choice(("TEXT", "TEXT", "DATE"))}
    if rng.random() < 0.3:
        types["TEXT"] = rng.choice(("VARCHAR", "VARCHAR(50)", "VARCHAR(100)"))
        types["INTEGER"] = rng.choice(("INTEGER", "INT"))
        types["REAL"] = rng.choice(("REAL", "DECIMAL", "FLOAT"))
    return Style(rng.choices(("", "camel", "upper", "title"), (86, 6, 4, 4))[0], types)


def draw_schema(rng: random.Random, split: str, rare_share: float = RARE_SHARE) -> tuple[Schema, str]:
    """(a variant of one of the split's schemas, its CREATE TABLE statements)."""
    schema = rng.choice(schemas(split))
    tables = _some_tables(rng, schema)
    tables = {name: _some_columns(rng, table, tables) for name, table in tables.items()}
    if rng.random() < rare_share:
        tables = _with_rare_names(rng, tables, split == "train")
    style = draw_style(rng)
    tables = _spelled(tables, style)
    context = "; ".join(style.ddl(table) for table in _shuffled(rng, list(tables.values())))
    return Schema(schema.domain, tables), context


def _shuffled(rng: random.Random, items: list) -> list:
    return rng.sample(items, len(items))


def _some_tables(rng: random.Random, schema: Schema) -> dict[str, Table]:
    """All tables, or linked ones, or one."""
    names = list(schema.tables)
    if len(names) == 1:
        return dict(schema.tables)
    count = rng.choices(range(1, len(names) + 1), (1, 4, 6)[: len(names)])[0]
    chosen = [rng.choice(names)]
    while len(chosen) < count:
        linked = [n for n in names if n not in chosen and any(_linked(schema, n, c) for c in chosen)]
        if not linked:
            break
        chosen.append(rng.choice(linked))
    return {name: schema.tables[name] for name in names if name in chosen}


def _linked(schema: Schema, a: str, b: str) -> bool:
    parents = {(t.name, c.parent) for t in (schema.tables[a], schema.tables[b]) for c in t.columns if c.parent}
    return (a, b) in parents or (b, a) in parents


def _some_columns(rng: random.Random, table: Table, tables: dict[str, Table]) -> Table:
    """Keys that link, the label and some of the others, mostly in their order."""
    pointed_at = any(c.parent == table.name for t in tables.values() for c in t.columns)
    others = [c for c in table.columns if c.is_asked and not c.label]
    count = min(len(others), rng.choices((1, 2, 3, 4, 5, 6), (6, 18, 30, 24, 14, 8))[0])
    kept = rng.sample(others, count)
    keys = [c for c in table.columns if (c.key and (pointed_at or rng.random() < 0.4)) or c.parent in tables]
    columns = [c for c in table.columns if c.label or c in kept or c in keys]
    return replace(table, columns=tuple(_shuffled(rng, columns) if rng.random() < 0.15 else columns))


def _with_rare_names(rng: random.Random, tables: dict[str, Table], training: bool) -> dict[str, Table]:
    """The same tables with the names of rows, columns and values replaced by rare words, all or some of them."""
    share, taken = rng.choice((0.3, 0.6, 1.0)), {n for t in tables.values() for n in (t.name, *t.one.split())}
    names = {name: name for name in tables}
    made = {}
    for name, table in tables.items():
        one, many = table.one, table.many
        if rng.random() < share:
            words = _rare_words(rng, training, taken, rng.choice((1, 1, 2)))
            one, many = " ".join(words), (" ".join([*words[:-1], plural(words[-1])]),)
            names[name] = "_".join(rng.choice((one, many[0])).split())
        columns = []
        for column in table.columns:
            if column.label and rng.random() < share:
                column = _rare_label(rng, table, one, training)
            elif column.is_asked and rng.random() < share:
                column = _rare_column(rng, column, training, taken)
            columns.append(column)
        people = table.people and one == table.one
        made[name] = replace(table, name=names[name], one=one, many=many, columns=tuple(columns), people=people)
    return {
        names[name]: replace(
            table, columns=tuple(replace(c, parent=names[c.parent]) if c.parent in names else c for c in table.columns)
        )
        for name, table in made.items()
    }


def _rare_label(rng: random.Random, table: Table, one: str, training: bool) -> Column:
    """The table's label with rare values, by a name that no other column has or is called by."""
    others = {word for c in table.columns if not c.label for word in (c.name, *c.nouns)} | KEYWORDS
    names = ["name", "title", "code", one.replace(" ", "_"), f"{one.split()[-1]}_name"]
    name = rng.choice([name for name in names if name not in others])
    nouns, values = ("name" if spoken(name) == one else spoken(name),), _rare_values(rng, training)
    return replace(table.label, name=name, nouns=nouns, type="TEXT", phrases={}, values=values)


def _rare_column(rng: random.Random, column: Column, training: bool, taken: set[str]) -> Column:
    words = _rare_words(rng, training, taken, rng.choice((1, 1, 2)))
    if column.is_number and rng.random() < 0.35:
        words = [words[0], rng.choice(UNITS)]
    nouns = (" ".join(words), *((words[0],) if len(words) > 1 and rng.random() < 0.4 else ()))
    values = column.values if column.type != "TEXT" else _rare_values(rng, training)
    adjective = column.type == "TEXT" and rng.random() < 0.3
    return replace(
        column, name="_".join(words), nouns=nouns, phrases={}, values=values, adjective=adjective, maybe=False
    )


def _rare_words(rng: random.Random, training: bool, taken: set[str], count: int) -> list[str]:
    words = []
    while len(words) < count:
        word = rng.choice(real_words("nouns", training))
        if word not in taken and not {word, plural(word)} & KEYWORDS:
            words.append(word)
            taken.add(word)
    return words


def _rare_values(rng: random.Random, training: bool) -> tuple[str, ...]:
    """A column's values: all names, two words, or nouns."""
    nouns, names = real_words("nouns", training), real_words("names", training)
    way = rng.choice(("name", "noun", "two", "person", "code"))
    draw = {
        "name": lambda: rng.choice(names),
        "noun": lambda: rng.choice(nouns),
        "two": lambda: f"{rng.choice(nouns).title()} {rng.choice(nouns).title()}",
        "person": lambda: f"{rng.choice(names)} {rng.choice(names)}",
        "code": lambda: f"{rng.choice(nouns)[:2].upper()}-{rng.randint(1, 999)}",
    }[way]
    return tuple(draw() for _ in range(16))


def _spelled(tables: dict[str, Table], style: Style) -> dict[str, Table]:
    return {
        style.name(name): replace(
            table,
            name=style.name(name),
            columns=tuple(
                replace(c, name=style.name(c.name), parent=style.name(c.parent) if c.parent else "")
                for c in table.columns
            ),
        )
        for name, table in tables.items()
    }
