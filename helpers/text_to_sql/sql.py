"""Writing queries: which tables a query needs, how they join, and what a column is called there.

The policy that every reference keeps: names as CREATE TABLE spells them, never quoted; text in single quotes, spelled
as in the question; the table with the foreign key is T1, those that it points to T2, T3; a list of three is IN.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from helpers.text_to_sql.domains import Column, Schema, Table


@dataclass(frozen=True)
class Ref:
    """A column of a table, in a form of its own: "{c}", "AVG({c})", "{c} > 5"."""

    table: Table
    column: Column
    form: str = "{c}"


@dataclass
class Query:
    """A SELECT in parts; `tables` are those that it needs beside the ones its columns name."""

    select: list[Ref | str]
    tables: list[Table]
    where: list[Ref] = field(default_factory=list)
    either: bool = False  # the conditions are joined by OR
    distinct: bool = False
    group: Ref | None = None
    having: str = ""
    order: Ref | str | None = None
    descending: bool = False
    limit: int | None = None

    def sql(self, schema: Schema) -> str:
        refs = [part for part in (*self.select, *self.where, self.group, self.order) if isinstance(part, Ref)]
        source = Source(schema, {t.name: t for t in (*self.tables, *(ref.table for ref in refs))})
        parts = ["SELECT DISTINCT" if self.distinct else "SELECT", ", ".join(map(source.written, self.select))]
        parts += ["FROM", source.sql]
        if self.where:
            parts += ["WHERE", (" OR " if self.either else " AND ").join(map(source.written, self.where))]
        if self.group:
            parts += ["GROUP BY", source.written(self.group)]
        if self.having:
            parts += ["HAVING", self.having]
        if self.order:
            parts += ["ORDER BY", source.written(self.order)] + ["DESC"] * self.descending
        if self.limit:
            parts += ["LIMIT", str(self.limit)]
        return " ".join(parts)


class Source:
    """FROM: one table by its name, or several joined, the one from which foreign keys lead to all others first."""

    def __init__(self, schema: Schema, tables: dict[str, Table]):
        self.aliases: dict[str, str] = {}
        if len(tables) == 1:
            self.sql = next(iter(tables))
            return
        root = next(t for t in tables.values() if len(_reached(t, tables)) == len(tables))
        order = _reached(root, tables)
        self.aliases = {name: f"T{i}" for i, name in enumerate(order, 1)}
        joins = [f"{root.name} AS T1"]
        for name, (child, link) in list(order.items())[1:]:
            own = f"{self.aliases[name]}.{tables[name].key.name}"
            joins.append(f"JOIN {name} AS {self.aliases[name]} ON {self.aliases[child]}.{link.name} = {own}")
        self.sql = " ".join(joins)

    def written(self, part: Ref | str) -> str:
        if isinstance(part, str):
            return part
        alias = self.aliases.get(part.table.name)
        return part.form.replace("{c}", f"{alias}.{part.column.name}" if alias else part.column.name)


def _reached(root: Table, tables: dict[str, Table]) -> dict[str, tuple[str, Column | None]]:
    """Table -> (the table whose foreign key leads there, that key), breadth first from the root."""
    reached: dict[str, tuple[str, Column | None]] = {root.name: ("", None)}
    queue = [root]
    while queue:
        table = queue.pop(0)
        for column in table.columns:
            if column.parent in tables and column.parent not in reached:
                reached[column.parent] = (table.name, column)
                queue.append(tables[column.parent])
    return reached


def literal(value: object) -> str:
    """A value as SQL writes it."""
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"


def text_literals(sql: str) -> list[str]:
    """The texts that a query names, LIKE's without their %."""
    return [text.replace("''", "'").strip("%") for text in re.findall(r"'((?:[^']|'')*)'", sql)]


def linked(tables: Iterable[Table], parent: Table) -> list[tuple[Table, Column]]:
    """The tables with a foreign key to `parent`, and that key."""
    return [(t, c) for t in tables for c in t.columns if c.parent == parent.name and t is not parent]
