"""The tables of a question: made from its CREATE TABLE statements inside the sandbox, and what SQLite says of them."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache

from helpers.text_to_sql.sandbox import (
    REFUSALS,
    ExecutionError,
    allow_creating,
    allow_inserting,
    allow_reading,
    connect,
)


@dataclass(frozen=True, eq=False)  # a column is itself only: hashed millions of times
class Column:
    """A column as SQLite's own PRAGMA table_info describes it. `key`: its values are all different and never NULL;
    `required`: it is declared NOT NULL."""

    table: str
    name: str
    numeric: bool
    whole: bool
    key: bool
    required: bool


def quoted(name: str) -> str:
    """A name as SQLite takes it whatever it is: a word of SQL's own, two words."""
    return '"' + name.replace('"', '""') + '"'


def open_tables(context: str, rows: dict[str, list[tuple]]) -> sqlite3.Connection:
    """The tables of `context` in memory holding `rows` (table -> tuples), closed to everything but reading. The caller
    closes the connection. Raises ExecutionError where the context is anything but CREATE TABLE statements."""
    connection = connect()
    try:
        allow_creating(connection)
        connection.executescript(context)
        allow_inserting(connection)
        for table, tuples in rows.items():
            names = ", ".join(quoted(column.name) for column in schema_of(context)[table])
            # OR IGNORE: a CHECK or UNIQUE that somebody wrote may refuse a row; the others are enough.
            insert = f"INSERT OR IGNORE INTO {quoted(table)} ({names}) VALUES ({', '.join('?' * len(tuples[0]))})"
            connection.executemany(insert, tuples)
        allow_reading(connection)
    except REFUSALS as error:
        connection.close()
        reason = str(error) or "out of memory"
        message = f"The tables can't be made ({reason}): write each as CREATE TABLE name (column TYPE, ...)."
        raise ExecutionError(message) from None
    return connection


@lru_cache(maxsize=8192)
def schema_of(context: str) -> dict[str, list[Column]]:
    """Table -> columns, in the order in which they are declared."""
    with closing(open_tables(context, {})) as connection:
        allow_inserting(connection)  # PRAGMAs, ours
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        described = {name: connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall() for name in names}
    if not described:
        raise ExecutionError("There is no table: write at least one CREATE TABLE name (column TYPE, ...).")
    return {
        name: [_column(name, info) for info in columns]
        for name, columns in described.items()
        if not name.startswith("sqlite_")
    }


def _column(table: str, info: tuple) -> Column:
    _, name, declared, required, _, primary = info
    whole = re.search("INT|BOOL", declared, re.I) is not None
    numeric = whole or re.search("REAL|FLOAT|DOUBLE|DEC|NUM", declared, re.I) is not None
    # `id`, and director_id in directors: a key by its name, since hardly anybody declares one.
    stem = re.sub("(^|_)(id|ID|Id)$|Id$", "", name)
    key = bool(primary) or (stem != name and table.lower().startswith(stem[:-1].lower()))
    return Column(table, name, numeric, whole, key, bool(required))
