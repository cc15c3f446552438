"""Running SQL that a model or a stranger wrote: hostile until proven otherwise, on tables in memory (notebook 00).

Whatever it does, with a budget of instructions, processor time, memory and rows, it is at worst a wrong answer.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import closing

from helpers.errors import CourseError

MAX_INSTRUCTIONS = 300_000  # of SQLite's virtual machine; an honest query over such tables takes a few thousand
MAX_CPU_SECONDS = 0.5  # of this thread, so that a busy machine changes no verdict; an honest query takes milliseconds
MAX_HEAP_BYTES = 100_000_000  # of all of SQLite in this process: there is no limit for one connection
MAX_CONTEXT_BYTES, MAX_SQL_BYTES, MAX_VALUE_BYTES = 100_000, 5_000, 2_000
MAX_ROWS, MAX_RESULT_CHARACTERS = 5_000, 1_000_000
# Between two looks at the clock: SQLite looks only where a program jumps, so its straight pieces are kept short, too.
INSTRUCTIONS_PER_CHECK, MAX_PROGRAM_LENGTH = 100, 2_000

# Each takes time that grows at most with the square of MAX_VALUE_BYTES. printf does not: its precision sets its work.
FUNCTIONS = frozenset(
    "count sum total avg min max group_concat string_agg "
    "row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value "
    "lower upper length substr substring trim ltrim rtrim replace instr like glob hex quote unicode char concat "
    "concat_ws abs round sign ceil ceiling floor trunc mod power pow sqrt exp ln log log10 log2 random "
    "coalesce ifnull nullif iif if typeof likely unlikely "
    "date time datetime julianday unixepoch strftime timediff current_date current_time current_timestamp".split()
)
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
CREATING = {sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_READ}  # UNIQUE makes an index
CATALOGUE = {"sqlite_master", "sqlite_schema"}  # CREATE TABLE itself writes there
REFUSALS = (sqlite3.Error, sqlite3.Warning, ValueError, TypeError, OverflowError, MemoryError)


class ExecutionError(CourseError):
    """A query or a CREATE TABLE that SQLite refuses, or that can't be judged, in one sentence."""


def connect() -> sqlite3.Connection:
    """An empty database in memory that may only grow to MAX_HEAP_BYTES and writes no temporary file."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    # For the rest of the process: SQLite lowers this limit and never raises it. IPython's history, say, needs far less.
    connection.execute(f"PRAGMA hard_heap_limit = {MAX_HEAP_BYTES}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.setlimit(sqlite3.SQLITE_LIMIT_VDBE_OP, MAX_PROGRAM_LENGTH)
    return connection


def allow_creating(connection: sqlite3.Connection) -> None:
    """From here on the connection takes CREATE TABLE and nothing else."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_CONTEXT_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CONTEXT_BYTES)
    _give_budget(connection, CREATING)


def allow_inserting(connection: sqlite3.Connection) -> None:
    """From here on the connection takes our own statements; what they set off in the tables (a CHECK) has a budget."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    _give_budget(connection, None)


def allow_reading(connection: sqlite3.Connection) -> None:
    """From here on the connection takes SELECT and nothing else."""
    connection.execute("PRAGMA query_only = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100)
    _give_budget(connection, READING)


def _give_budget(connection: sqlite3.Connection, allowed: set[int] | None) -> None:
    """Count instructions and processor time from zero; allow these actions (None: all) and FUNCTIONS."""
    deadline = time.thread_time() + MAX_CPU_SECONDS
    # Counted here: SQLite's own counter goes on from run to run of a cached statement and would stop honest ones.
    checks = iter(range(MAX_INSTRUCTIONS // INSTRUCTIONS_PER_CHECK))

    def is_spent() -> bool:
        return next(checks, None) is None or time.thread_time() > deadline

    def authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            permitted = (second or "").lower() in FUNCTIONS
        else:
            creates = allowed is CREATING and action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE)
            permitted = action in allowed or (creates and first in CATALOGUE)
        # Asked for every column that a query names: also the clock of a query that takes its time to be compiled.
        return sqlite3.SQLITE_OK if permitted and time.thread_time() <= deadline else sqlite3.SQLITE_DENY

    connection.set_progress_handler(is_spent, INSTRUCTIONS_PER_CHECK)
    connection.set_authorizer(authorize if allowed is not None else None)


def run_sql(sql: str, connection: sqlite3.Connection) -> list[tuple]:
    """The rows that one SELECT returns on a connection of `open_tables`. Raises ExecutionError when it is anything
    else, fails, or wants more time, memory or rows than an honest query needs."""
    _give_budget(connection, READING)
    rows: list[tuple] = []
    characters = 0
    try:
        with closing(connection.execute(sql)) as cursor:
            for row in cursor:
                rows.append(row)
                characters += sum(len(value) for value in row if isinstance(value, str | bytes))
                if len(rows) > MAX_ROWS or characters > MAX_RESULT_CHARACTERS:
                    raise ExecutionError(f"The query returns more than {MAX_ROWS} rows or much text: narrow it.")
            selects = cursor.description is not None
    except REFUSALS as error:
        reason = str(error) or "out of memory"
        raise ExecutionError(f"SQLite does not run the query ({reason}): write one SELECT over these tables.") from None
    if not selects:
        raise ExecutionError("There is no query to run: write one SELECT.")
    return rows


def answer_of(sql: str, connection: sqlite3.Connection, ordered: bool) -> list[tuple] | Counter[tuple] | None:
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
