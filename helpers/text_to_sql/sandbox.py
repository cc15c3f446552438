"""Running SQL that a model wrote: hostile until proven otherwise, on read-only tables in memory (notebook 00).

Whatever a prediction does, with a budget of instructions, bytes and rows, it is at worst a wrong answer.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache

from helpers.errors import CourseError

MAX_INSTRUCTIONS = 300_000  # of SQLite's virtual machine; an honest query over such tables takes a few thousand
MAX_VALUE_BYTES, MAX_SQL_BYTES, MAX_CONTEXT_BYTES, MAX_ROWS = 5_000, 10_000, 1_000_000, 5_000
DANGEROUS = {"load_extension", "zeroblob", "randomblob", "readfile", "writefile", "edit", "fts3_tokenizer"}
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
CREATING = {sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_READ}  # UNIQUE makes an index
CATALOGUE = {"sqlite_master", "sqlite_schema"}  # CREATE TABLE itself writes there
REFUSALS = (sqlite3.Error, sqlite3.Warning, ValueError, TypeError, OverflowError, MemoryError)


class ExecutionError(CourseError):
    """A query or a CREATE TABLE that SQLite refuses, in one sentence."""


def _authorizer(allowed: set[int]) -> Callable[..., int]:
    def authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
        harmless = action in allowed or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in DANGEROUS)
        creating = allowed is CREATING and action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE)
        return sqlite3.SQLITE_OK if harmless or (creating and first in CATALOGUE) else sqlite3.SQLITE_DENY

    return authorize


def _give_budget(connection: sqlite3.Connection) -> None:
    # Counted here: SQLite's own counter goes on from run to run of a cached statement and would stop honest ones.
    ticks = iter(range(MAX_INSTRUCTIONS // 1000))
    connection.set_progress_handler(lambda: next(ticks, None) is None, 1000)


def open_tables(context: str, rows: dict[str, list[tuple]]) -> sqlite3.Connection:
    """The tables of `context` in memory holding `rows` (table -> tuples), closed to everything but reading."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_CONTEXT_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CONTEXT_BYTES)
    connection.set_authorizer(_authorizer(CREATING))
    try:
        connection.executescript(context)
        connection.set_authorizer(None)
        for table, found in rows.items():
            names = ", ".join(quoted(column.name) for column in schema_of(context)[table])
            # OR IGNORE: a CHECK or UNIQUE that somebody wrote may refuse a row; the others are enough.
            insert = f"INSERT OR IGNORE INTO {quoted(table)} ({names}) VALUES ({', '.join('?' * len(found[0]))})"
            connection.executemany(insert, found)
        connection.execute("PRAGMA query_only = ON")
    except REFUSALS as error:
        connection.close()
        message = f"The tables can't be made ({error}): write each as CREATE TABLE name (column TYPE, ...)."
        raise ExecutionError(message) from None
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100)
    connection.set_authorizer(_authorizer(READING))
    return connection


def run_sql(sql: str, connection: sqlite3.Connection) -> list[tuple]:
    """The rows that one SELECT returns on a connection of `filled_database`. Raises ExecutionError when it is anything
    else, fails, or wants more instructions, bytes or rows than an honest query needs."""
    _give_budget(connection)
    try:
        with closing(connection.execute(sql)) as cursor:
            rows = cursor.fetchmany(MAX_ROWS + 1)
            selects = cursor.description is not None
    except REFUSALS as error:
        raise ExecutionError(f"SQLite does not run the query ({error}): write one SELECT over these tables.") from None
    if not selects:
        raise ExecutionError("There is no query to run: write one SELECT.")
    if len(rows) > MAX_ROWS:
        raise ExecutionError(f"The query returns more than {MAX_ROWS} rows: narrow it.")
    return rows


def answer_of(sql: str, connection: sqlite3.Connection, ordered: bool) -> object:
    """What a query returns, comparable by ==: 1 is 1.0, sums may be added in another order, any order of rows unless
    `ordered`. None where it does not run."""
    try:
        rows = run_sql(sql, connection)
    except ExecutionError:
        return None
    rounded = [tuple(_rounded(value) for value in row) for row in rows]
    return rounded if ordered else Counter(rounded)


def _rounded(value: object) -> object:
    # Nine significant digits, where six would take 1,234,567.5 for 1,234,568.4; whole numbers are left exact.
    return float(f"{value:.9g}") if isinstance(value, float) and not value.is_integer() else value


@dataclass(frozen=True)
class Column:
    """A column as SQLite's own PRAGMA table_info describes it; `key` says that its values are all different."""

    table: str
    name: str
    numeric: bool
    whole: bool
    key: bool


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _column(table: str, info: tuple) -> Column:
    _, name, declared, _, _, primary = info
    whole = re.search("INT|BOOL", declared, re.I) is not None
    numeric = whole or re.search("REAL|FLOAT|DOUBLE|DEC|NUM", declared, re.I) is not None
    # `id`, and director_id in directors: a key by its name, since hardly anybody declares one.
    stem = re.sub("(^|_)(id|ID|Id)$|Id$", "", name)
    key = bool(primary) or (stem != name and table.lower().startswith(stem[:-1].lower()))
    return Column(table, name, numeric, whole, key)


@lru_cache(maxsize=8192)
def schema_of(context: str) -> dict[str, list[Column]]:
    with closing(open_tables(context, {})) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        connection.set_authorizer(None)  # a PRAGMA, ours
        tables = {name: connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall() for name in names}
    if not tables:
        raise ExecutionError("There is no table: write at least one CREATE TABLE name (column TYPE, ...).")
    return {name: [_column(name, info) for info in found] for name, found in tables.items() if name[:7] != "sqlite_"}
