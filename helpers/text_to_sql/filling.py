"""Rows for the tables of a question, chosen so that the likely mistakes in its reference return something else.

Two queries that differ often agree on a handful of rows. So the reference is turned into its likely mistakes, and of
the seeded fillings tried, the one on which most of them give another result is kept (in the manner of test-suite
accuracy: Zhong, Yu, Klein, 2020, https://arxiv.org/abs/2010.02840).
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache

from helpers.text_to_sql.mutants import mutants
from helpers.text_to_sql.reference import Reference, clauses_of, has_order, tokens_of
from helpers.text_to_sql.rows import RowGenerator
from helpers.text_to_sql.sandbox import ExecutionError, answer_of, run_sql
from helpers.text_to_sql.tables import open_tables

MAX_FILLINGS = 40  # tried for one reference
PATIENCE = 14  # fillings in a row that refute nothing new: the mutants left are equivalent


@dataclass
class Filling:
    """Table -> rows, and what they are good for."""

    rows: dict[str, list[tuple]]
    informative: bool = False  # the reference returns something, and not what it returns on empty tables
    certain: bool = False  # no order of rows is left to chance
    refuted: set[str] = field(default_factory=set)  # the mutants that return something else

    @property
    def rank(self) -> tuple[bool, bool, int]:
        return self.informative, self.certain, len(self.refuted)


@lru_cache(maxsize=8192)
def best_filling(context: str, reference_sql: str, seed: int) -> Filling:
    """The filling that refutes most mutants. Fillings are cached and not connections: those can't be shared between
    threads. Raises ExecutionError when the reference doesn't run."""
    suspects = None
    best, ever, quiet = None, set(), 0
    for filling in _fillings(context, reference_sql, seed):
        suspects = mutants(reference_sql, context) if suspects is None else suspects
        if filling.informative:
            _refute(filling, context, reference_sql, suspects, best)
        if best is None or filling.rank > best.rank:
            best = filling
        fresh = filling.refuted - ever if filling.certain else set()
        quiet, ever = 0 if fresh else quiet + 1, ever | fresh
        if best.certain and (len(best.refuted) == len(suspects) or (quiet >= PATIENCE and best.refuted == ever)):
            break
    return best


def can_judge(context: str, reference_sql: str, seed: int = 0) -> bool:
    """Whether the reference runs and returns something on some filling."""
    try:
        return any(filling.informative for filling in _fillings(context, reference_sql, seed))
    except ExecutionError:
        return False


def _fillings(context: str, reference_sql: str, seed: int) -> Iterator[Filling]:
    """The seeded fillings of a reference. Raises ExecutionError when it doesn't run on empty tables."""
    ordered = has_order(reference_sql)
    with closing(open_tables(context, {})) as empty:
        run_sql(reference_sql, empty)
        on_empty = answer_of(reference_sql, empty, ordered)
    reference = Reference(reference_sql, context)
    for attempt in range(MAX_FILLINGS):
        generator = RowGenerator(random.Random(f"{seed}/{attempt}/{reference_sql}"), reference)
        filling = Filling({table: generator.table(columns) for table, columns in reference.schema.items()})
        with closing(open_tables(context, filling.rows)) as connection:
            answer = answer_of(reference_sql, connection, ordered)
        says_something = any(value is not None for row in answer or () for value in row)
        filling.informative = says_something and (answer != on_empty or not reference.table_at)
        yield filling


def _refute(filling: Filling, context: str, reference: str, suspects: list[str], best: Filling | None) -> None:
    """Find out which mutants a filling refutes. Where it can't be better than `best`, that is left open."""
    ordered, known = has_order(reference), best.refuted if best else set()
    with closing(open_tables(context, filling.rows)) as connection:
        expected = answer_of(reference, connection, ordered)
        unrefuted = [sql for sql in suspects if sql not in known]
        news = {sql for sql in unrefuted if answer_of(sql, connection, ordered) != expected}
        if best and best.certain and not news:
            return
        filling.refuted = news | {sql for sql in known if answer_of(sql, connection, ordered) != expected}
        tied = _has_ties(reference, connection)
    with closing(open_tables(context, {table: rows[::-1] for table, rows in filling.rows.items()})) as backwards:
        filling.certain = not tied and answer_of(reference, backwards, ordered) == expected


def _has_ties(reference: str, connection: sqlite3.Connection) -> bool:
    """Whether different rows share a sort key, so that their order (or which of them LIMIT keeps) is left to chance."""
    tokens = tokens_of(reference)
    clauses = clauses_of(tokens)
    if "ORDER" not in clauses or "FROM" not in clauses:
        return False
    (source, _), (start, end) = clauses["FROM"], clauses["ORDER"]
    keys = [token for token in tokens[start + 2 : end] if token.upper() not in ("ASC", "DESC")]
    try:
        with_keys = run_sql(" ".join([*tokens[:source], ",", *keys, *tokens[source:start]]), connection)
        width = len(run_sql(" ".join(["SELECT", *keys, *tokens[source:start]]), connection)[0])
    except ExecutionError:
        return False  # ORDER BY an alias or a number: the reversed rows still find most ties
    return len({row[-width:] for row in with_keys}) < len(set(with_keys))


def filled_rows(context: str, reference_sql: str, seed: int) -> dict[str, list[tuple]]:
    """Table -> rows, of the filling that refutes most mutants."""
    return best_filling(context, reference_sql, seed).rows


def filled_database(context: str, reference_sql: str, seed: int = 0) -> sqlite3.Connection:
    """The tables of `context` in memory, filled so that the likely mistakes in `reference_sql` show, and read-only.
    About 12 rows a table, the same for the same arguments. The caller closes it. Raises ExecutionError."""
    return open_tables(context, filled_rows(context, reference_sql, seed))
