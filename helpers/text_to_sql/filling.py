"""Rows for the tables of a question, chosen so that the likely mistakes in its reference return something else.

Two queries that differ often agree on a handful of rows. So the reference is turned into its likely mistakes, and of
the seeded fillings tried, the one on which most of them give another result is kept (in the manner of test-suite
accuracy: Zhong, Yu, Klein, 2020, https://arxiv.org/abs/2010.02840).
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from functools import lru_cache

from helpers.text_to_sql.mutants import mutants
from helpers.text_to_sql.reference import INSIDE, Reference, clauses_of, tokens_of
from helpers.text_to_sql.sandbox import Column, ExecutionError, answer_of, open_tables, run_sql, schema_of

ROWS = 12  # a table; more only where LIMIT or HAVING asks for it
FILLINGS = 40  # tried at most for one reference
PATIENCE = 14  # fillings in a row that refute nothing new: the mutants left are equivalent
WORDS = (
    "Amber Birch Cobalt Dune Ember Fennel Garnet Hazel Indigo Juniper Kelp Linden Maple Nettle Ochre Poppy Quartz "
    "Rowan Sorrel Thistle Umber Violet Willow Yarrow Zinnia Aster Bramble Clover Drift Elder Fern Gorse Heather Iris"
).split()


def _step(value: int | float | str, by: int) -> int | float | str:
    if not isinstance(value, str):
        return value + by
    if value.isdecimal():
        return str(int(value) + by)
    return WORDS[(len(value) + by) % len(WORDS)] if by else value


class Filling:
    """Draws the rows of one filling from one seeded generator."""

    def __init__(self, rng: random.Random, reference: Reference) -> None:
        self.rng, self.reference = rng, reference
        compared = reference.compared.items()
        self.strings = [v for _, found in compared for _, v in found if isinstance(v, str)]
        self.size = max(ROWS, reference.limit * 3, reference.group_size * 4 + 2)
        keys = [v for column, found in compared for _, v in found if column in reference.joined]
        count = 4 if reference.group_size else self.size * 2 // 3  # few parents: each has as many rows as HAVING asks
        self.keys = list(dict.fromkeys(keys + rng.sample(range(1, 90), count)))[:count]
        self.pools: dict[Column, list] = {}
        # What helps one reference harms another (ties, rows that meet the conditions): the search sees which.
        self.distinct, self.one_to_one = rng.random() < 0.6, bool(reference.sorted) and rng.random() < 0.6
        self.eager = rng.choice((0.3, 0.6, 0.9))

    def table(self, columns: list[Column]) -> list[tuple]:
        rows = [self._row(columns) for _ in range(self.size)]
        for i, column in enumerate(columns):
            sorts, joins = column in self.reference.sorted, column in self.reference.joined
            if column.key or (sorts and self.distinct) or (joins and self.one_to_one):
                self._make_distinct(rows, i, column)
            elif column in self.reference.grouped and self.reference.group_size and not self.reference.joined:
                self._make_groups(rows, i, column)
        return [tuple(row) for row in rows]

    def _row(self, columns: list[Column]) -> list:
        """At random, or meeting every condition, or all of them but one (what a dropped condition lets in)."""
        row, reference = [self._value(column) for column in columns], self.reference
        compared = [i for i, c in enumerate(columns) if reference.compared.get(c) and c not in reference.joined]
        kind = self.rng.random()
        spared = self.rng.choice(compared) if compared and kind < self.eager / 2 else None
        for i in compared if kind < self.eager else ():
            operator, literal = self.rng.choice(reference.compared[columns[i]])
            row[i] = row[i] if i == spared else _step(literal, self.rng.choice(INSIDE[operator]))
        return row

    def _value(self, column: Column) -> int | float | str:
        pool = self.keys if column in self.reference.joined else self.pools.get(column)
        pool = pool or self.pools.setdefault(column, self._pool(column))
        return pool[int(len(pool) * self.rng.random() ** 1.3)]  # unevenly: groups get sizes, DISTINCT something to do

    def _pool(self, column: Column) -> list:
        """The literals and their neighbours, then a few values around them, or words."""
        near = [_step(v, by) for _, v in self.reference.compared.get(column, ()) for by in (-1, 0, 1)]
        count = self.rng.choice((3, 4, 6, 9))
        if not column.numeric:
            return near + self.rng.sample(WORDS, count) + self.rng.sample(self.strings, min(len(self.strings), 1))
        middle = next((int(v) for v in near if not isinstance(v, str)), self.rng.choice((10, 60, 300, 1900)))
        spread = max(6, int(abs(middle) * self.rng.choice((0.02, 0.3))))
        far = [middle + self.rng.randint(-spread, spread) for _ in range(count)]
        return near + [v if column.whole else v + self.rng.randint(0, 9) / 10 for v in far]

    def _make_distinct(self, rows: list[list], i: int, column: Column) -> None:
        if column in self.reference.joined:
            for row, key in zip(rows, self.keys):
                row[i] = key
        seen: set = set()
        for n, row in enumerate(rows):
            while row[i] in seen:
                text = isinstance(row[i], str)
                row[i] = f"{self.rng.choice(WORDS)} {n}" if text else row[i] + self.rng.randint(-9, 9) + n % 2
            seen.add(row[i])

    def _make_groups(self, rows: list[list], i: int, column: Column) -> None:
        """Group sizes around HAVING's number: on it, one over, one under, well over."""
        n = self.reference.group_size
        literals = [v for _, v in self.reference.compared.get(column, ())]
        names = (literals + self.rng.sample(range(1, 99) if column.numeric else WORDS, 4))[:4]
        self.rng.shuffle(names)
        values = [name for name, size in zip(names, (n, n + 1, n - 1, len(rows))) for _ in range(size)][: len(rows)]
        for row, value in zip(self.rng.sample(rows, len(rows)), values):
            row[i] = value


@lru_cache(maxsize=8192)
def filled_rows(context: str, reference_sql: str, seed: int) -> dict[str, list[tuple]]:
    """Table -> rows, of the filling that refutes most mutants. Rows are cached and not connections: those can't be
    shared between threads."""
    with closing(open_tables(context, {})) as empty:
        run_sql(reference_sql, empty)  # raises here when the reference itself is wrong
    reference, suspects = Reference(reference_sql, context), mutants(reference_sql, context)
    best, known, ever, quiet = {}, None, set(), 0
    for attempt in range(FILLINGS):
        filling = Filling(random.Random(f"{seed}/{attempt}/{reference_sql}"), reference)
        rows = {table: filling.table(reference.schema[table]) for table in dict.fromkeys(reference.tables.values())}
        refuted = _refuted(context, rows, reference_sql, suspects, known or set())
        if known is None or (refuted and len(refuted) > len(known)):
            best, known = rows, refuted
        quiet = 0 if (refuted or set()) - ever else quiet + 1
        ever |= refuted or set()
        if known is not None and (len(known) == len(suspects) or (quiet >= PATIENCE and known == ever)):
            break
    others = Filling(random.Random(f"{seed}/{context}"), Reference("", context))
    return {table: best.get(table) or others.table(columns) for table, columns in schema_of(context).items()}


def _refuted(
    context: str, rows: dict[str, list[tuple]], reference: str, suspects: list[str], known: set[str]
) -> set[str] | None:
    """The mutants that give another result on these rows; None where the reference's own is empty or left to chance.
    `known` are those that the best filling so far refutes: where nothing else falls, it stays best, and that is all."""
    ordered = "ORDER" in clauses_of(tokens_of(reference))
    with closing(open_tables(context, rows)) as connection:
        expected = answer_of(reference, connection, ordered)
        if not any(value not in (None, 0) for row in expected or () for value in row):
            return None
        refuted = {sql for sql in suspects if sql not in known and answer_of(sql, connection, ordered) != expected}
        if known and not refuted:
            return refuted
        refuted |= {sql for sql in known if answer_of(sql, connection, ordered) != expected}
        if _has_ties(reference, connection):
            return None
    with closing(open_tables(context, {table: found[::-1] for table, found in rows.items()})) as backwards:
        return refuted if answer_of(reference, backwards, ordered) == expected else None


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


def filled_database(context: str, reference_sql: str, seed: int = 0) -> sqlite3.Connection:
    """The tables of `context` in memory, filled so that the likely mistakes in `reference_sql` show, and read-only.
    About 12 rows a table, the same for the same arguments. The caller closes it. Raises ExecutionError."""
    return open_tables(context, filled_rows(context, reference_sql, seed))
