"""Execution accuracy: a prediction is right when it returns what the reference returns, on tables filled for that.

Two queries that differ often agree on a handful of rows, so the rows are chosen: the reference is turned into its
likely mistakes (mutants), and of the seeded fillings tried, the one on which most of them give another result is kept
(in the manner of test-suite accuracy: Zhong, Yu, Klein, 2020, https://arxiv.org/abs/2010.02840). Notebook 00.
Predictions come from a model and are hostile until proven otherwise: they run read-only, with a budget of
instructions, bytes and rows, and whatever they do is at worst a wrong answer.
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache

from helpers.errors import CourseError

ROWS = 12  # a table; more only where LIMIT or HAVING asks for it
FILLINGS = 40  # tried at most for one reference
PATIENCE = 14  # fillings in a row that refute nothing new: the mutants left are equivalent
MAX_INSTRUCTIONS = 300_000  # of SQLite's virtual machine; an honest query over such tables takes a few thousand
MAX_VALUE_BYTES, MAX_SQL_BYTES, MAX_CONTEXT_BYTES, MAX_ROWS = 5_000, 10_000, 1_000_000, 5_000
DANGEROUS = {"load_extension", "zeroblob", "randomblob", "readfile", "writefile", "edit", "fts3_tokenizer"}
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
CREATING = {sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_READ}  # UNIQUE makes an index
CATALOGUE = {"sqlite_master", "sqlite_schema"}  # CREATE TABLE itself writes there
REFUSALS = (sqlite3.Error, sqlite3.Warning, ValueError, TypeError, OverflowError, MemoryError)

TOKEN = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|-?\d+(?:\.\d+)?|[^\W\d]\w*(?:\.(?:[^\W\d]\w*|"[^"]*"))?|[<>!=]=|<>|\S"""
)
MISTAKEN = {">": [">=", "<"], ">=": [">", "<="], "<": ["<=", ">"], "<=": ["<", ">="], "=": ["!="], "!=": ["="]}
INSIDE = {">": (1, 2), ">=": (0, 1), "<": (-1, -2), "<=": (0, -1), "=": (0,), "!=": (-1, 1)}  # steps from the literal
AGGREGATES = ("MIN", "MAX", "AVG", "SUM", "COUNT")
CLAUSES = ("SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "EXCEPT", "INTERSECT")
WORDS = (
    "Amber Birch Cobalt Dune Ember Fennel Garnet Hazel Indigo Juniper Kelp Linden Maple Nettle Ochre Poppy Quartz "
    "Rowan Sorrel Thistle Umber Violet Willow Yarrow Zinnia Aster Bramble Clover Drift Elder Fern Gorse Heather Iris"
).split()


class ExecutionError(CourseError):
    """A query or a CREATE TABLE that SQLite refuses, in one sentence."""


# --- running, safely -------------------------------------------------------------------------------------------------


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


def _open(context: str, rows: dict[str, list[tuple]]) -> sqlite3.Connection:
    """The tables of `context` in memory holding `rows` (table -> tuples), closed to everything but reading."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_CONTEXT_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CONTEXT_BYTES)
    connection.set_authorizer(_authorizer(CREATING))
    try:
        connection.executescript(context)
        connection.set_authorizer(None)
        for table, found in rows.items():
            names = ", ".join(_quoted(column.name) for column in _schema(context)[table])
            # OR IGNORE: a CHECK or UNIQUE that somebody wrote may refuse a row; the others are enough.
            insert = f"INSERT OR IGNORE INTO {_quoted(table)} ({names}) VALUES ({', '.join('?' * len(found[0]))})"
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


def _answer(sql: str, connection: sqlite3.Connection, ordered: bool) -> object:
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


def is_correct(predicted_sql: str | None, context: str, reference_sql: str, seed: int = 0) -> bool:
    """Whether the prediction returns the reference's rows (in its order if it has ORDER BY) on the tables that `seed`
    fills. Whatever the prediction is, the answer is True or False; a bad context or reference raises ExecutionError."""
    ordered = "ORDER" in _clauses(_tokens(reference_sql))
    with closing(filled_database(context, reference_sql, seed)) as connection:
        expected = _answer(reference_sql, connection, ordered)
        found = _answer(predicted_sql, connection, ordered) if isinstance(predicted_sql, str) else None
    return found is not None and found == expected


# --- reading tables and references -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column as SQLite's own PRAGMA table_info describes it; `key` says that its values are all different."""

    table: str
    name: str
    numeric: bool
    whole: bool
    key: bool


def _quoted(name: str) -> str:
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
def _schema(context: str) -> dict[str, list[Column]]:
    with closing(_open(context, {})) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        connection.set_authorizer(None)  # a PRAGMA, ours
        tables = {name: connection.execute(f"PRAGMA table_info({_quoted(name)})").fetchall() for name in names}
    if not tables:
        raise ExecutionError("There is no table: write at least one CREATE TABLE name (column TYPE, ...).")
    return {name: [_column(name, info) for info in found] for name, found in tables.items() if name[:7] != "sqlite_"}


def _tokens(sql: str) -> list[str]:
    return TOKEN.findall(sql.strip().rstrip(";"))


def _clauses(tokens: list[str]) -> dict[str, tuple[int, int]]:
    """Clause -> its first token and the one after its last, of the outermost query."""
    depth, starts = 0, []
    for i, token in enumerate(tokens):
        depth += (token == "(") - (token == ")")
        if depth == 0 and token.upper() in CLAUSES:
            starts.append((token.upper(), i))
    ends = [i for _, i in starts[1:]] + [len(tokens)]
    return {name: (i, end) for (name, i), end in zip(starts, ends)}


def _literal(token: str) -> int | float | str | None:
    if token[0] in "'\"":  # a string in double quotes, too: SQLite takes it where no column has that name
        return token[1:-1].replace(token[0] * 2, token[0])
    if re.fullmatch(r"-?\d+(\.\d+)?", token):
        return float(token) if "." in token else int(token)
    return None


class Reference:
    """What mutants and fillings have to know about a query: the column that each token names, what the columns are
    compared with, which of them join, sort and group, and the numbers in HAVING and LIMIT."""

    def __init__(self, sql: str, context: str) -> None:
        self.tokens, self.schema = _tokens(sql), _schema(context)
        self.clauses, self.tables = _clauses(self.tokens), self._tables()
        self.columns = [self._find(token) for token in self.tokens]
        self.compared: dict[Column, list[tuple[str, int | float | str]]] = {}
        self.joined: set[Column] = set()
        for i, column in enumerate(self.columns):
            if column:
                self._compare(column, i + 1)
        self.sorted, self.grouped = self._in_clause("ORDER"), self._in_clause("GROUP")
        self.group_size, self.limit = self._number("HAVING"), self._number("LIMIT")

    def _tables(self) -> dict[str, str]:
        """Alias or name, lower case -> table."""
        found, names = {}, {name.lower(): name for name in self.schema}
        for i, token in enumerate(self.tokens):
            name = names.get(token.strip('"`').lower())
            if name and self.tokens[i - 1].upper() in ("FROM", "JOIN", ","):
                alias = [t.lower() for t in self.tokens[i + 1 : i + 3] if t.upper() != "AS"]
                found |= {alias[0]: name, name.lower(): name} if alias else {name.lower(): name}
        return found

    def _find(self, token: str) -> Column | None:
        alias, _, name = token.rpartition(".") if token[0] not in "'\"`" else ("", "", token)
        tables = [self.tables.get(alias.lower())] if alias else self.tables.values()
        found = (column for table in tables if table for column in self.schema[table])
        return next((c for c in found if c.name.lower() == name.strip('"`').lower()), None)

    def _compare(self, column: Column, after: int) -> None:
        after += self.tokens[after : after + 1] == [")"]  # AVG(column) > 5 says where the column's values lie, too
        operator, *right = self.tokens[after : after + 4] or [""]
        operator = {"<>": "!=", "==": "="}.get(operator, operator.upper())
        other = self.columns[after + 1] if right else None
        if operator in INSIDE and other and other.table != column.table:
            self.joined |= {column, other}
        elif operator in INSIDE or operator in ("BETWEEN", "LIKE", "IN"):
            values = [v.strip("%") if isinstance(v, str) else v for t in right if (v := _literal(t)) is not None]
            operators = [">=", "<="] if operator == "BETWEEN" else [operator if operator in INSIDE else "="]
            self.compared.setdefault(column, []).extend(zip(operators, values))

    def _in_clause(self, name: str) -> set[Column]:
        return {column for column in self.columns[slice(*self.clauses.get(name, (0, 0)))] if column}

    def _number(self, name: str) -> int:
        found = [_literal(token) for token in self.tokens[slice(*self.clauses.get(name, (0, 0)))]]
        return min(20, max((n for n in found if isinstance(n, int)), default=0))


# --- filling ---------------------------------------------------------------------------------------------------------


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
def _rows(context: str, reference_sql: str, seed: int) -> dict[str, list[tuple]]:
    """Table -> rows, of the filling that refutes most mutants. Rows are cached and not connections: those can't be
    shared between threads."""
    with closing(_open(context, {})) as empty:
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
    return {table: best.get(table) or others.table(columns) for table, columns in _schema(context).items()}


def _refuted(
    context: str, rows: dict[str, list[tuple]], reference: str, suspects: list[str], known: set[str]
) -> set[str] | None:
    """The mutants that give another result on these rows; None where the reference's own is empty or left to chance.
    `known` are those that the best filling so far refutes: where nothing else falls, it stays best, and that is all."""
    ordered = "ORDER" in _clauses(_tokens(reference))
    with closing(_open(context, rows)) as connection:
        expected = _answer(reference, connection, ordered)
        if not any(value not in (None, 0) for row in expected or () for value in row):
            return None
        refuted = {sql for sql in suspects if sql not in known and _answer(sql, connection, ordered) != expected}
        if known and not refuted:
            return refuted
        refuted |= {sql for sql in known if _answer(sql, connection, ordered) != expected}
        if _has_ties(reference, connection):
            return None
    with closing(_open(context, {table: found[::-1] for table, found in rows.items()})) as backwards:
        return refuted if _answer(reference, backwards, ordered) == expected else None


def _has_ties(reference: str, connection: sqlite3.Connection) -> bool:
    """Whether different rows share a sort key, so that their order (or which of them LIMIT keeps) is left to chance."""
    tokens = _tokens(reference)
    clauses = _clauses(tokens)
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
    return _open(context, _rows(context, reference_sql, seed))


# --- mistakes --------------------------------------------------------------------------------------------------------


def mutants(reference_sql: str, context: str) -> list[str]:
    """The likely mistakes in a query, each as SQL that runs: wrong operator, connector, column, aggregate, bound or
    direction, a condition or clause dropped, DISTINCT dropped or added. Some may be equivalent to the reference."""
    reference = Reference(reference_sql, context)
    made = [" ".join(tokens) for way in (_replaced, _dropped, _distinct_or_not) for tokens in way(reference)]
    with closing(_open(context, {})) as connection:
        suspects = [sql for sql in dict.fromkeys(made) if sql != " ".join(reference.tokens)]
        return [sql for sql in suspects if _answer(sql, connection, True) is not None]


def _is_range(tokens: list[str], i: int) -> bool:
    return i > 1 and tokens[i - 2].upper() == "BETWEEN"  # the AND of BETWEEN a AND b joins no conditions


def _replaced(reference: Reference) -> Iterator[list[str]]:
    for i in range(len(reference.tokens)):
        for other in _instead(reference, i):
            yield [*reference.tokens[:i], other, *reference.tokens[i + 1 :]]


def _instead(reference: Reference, i: int) -> list[str]:
    """What a mistaken query may have in the place of token i."""
    tokens, token, upper = reference.tokens, reference.tokens[i], reference.tokens[i].upper()
    column, before = reference.columns[i], [t.upper() for t in reference.tokens[max(0, i - 2) : i]]
    if column and before != ["COUNT", "("]:  # without NULLs COUNT(a) is COUNT(b)
        alias = token[: token.rfind(".") + 1] if token[0] not in "'\"`" else ""
        return [alias + _quoted(c.name) for c in reference.schema[column.table] if c != column][:6]
    if upper in AGGREGATES and tokens[i + 1 : i + 2] == ["("]:
        return [name for name in AGGREGATES if name != upper]
    if upper in ("AND", "OR") and not _is_range(tokens, i):
        return ["OR" if upper == "AND" else "AND"]
    if upper in ("ASC", "DESC"):
        return ["DESC" if upper == "ASC" else "ASC"]
    counted = i in range(*reference.clauses.get("HAVING", (0, 0))) or before[-1:] in (["LIMIT"], ["BETWEEN"])
    if isinstance(value := _literal(token), int) and (counted or _is_range(tokens, i - 1)):
        return [str(value + by) for by in (-1, 1) if value + by > 0]
    return MISTAKEN.get({"<>": "!=", "==": "="}.get(token, token), [])


def _dropped(reference: Reference) -> Iterator[list[str]]:
    tokens = reference.tokens
    for name, (start, end) in reference.clauses.items():
        if name not in ("SELECT", "FROM"):
            yield tokens[:start] + tokens[end:]
        if name in ("WHERE", "HAVING"):
            joints = [i for i in range(start, end) if tokens[i].upper() in ("AND", "OR") and not _is_range(tokens, i)]
            for left, right in zip([start, *joints], [*joints, end]):
                cut = (left, right) if left > start else (start + 1, right + 1)  # with the AND before it, or after
                yield tokens[: cut[0]] + tokens[cut[1] :]
        if name == "ORDER":
            for i in range(start + 2, end):  # ascending without a word for it: add DESC
                if tokens[i + 1 : i + 2] in ([], [","], ["LIMIT"]) and tokens[i].upper() not in ("ASC", "DESC"):
                    yield [*tokens[: i + 1], "DESC", *tokens[i + 1 :]]


def _distinct_or_not(reference: Reference) -> Iterator[list[str]]:
    tokens = reference.tokens
    one_row = "GROUP" not in reference.clauses and tokens[1:2] and tokens[1].upper() in AGGREGATES
    for i, token in enumerate(tokens[:-1]):
        counts = token == "(" and tokens[i - 1].upper() in ("COUNT", "SUM", "AVG")
        if token.upper() == "DISTINCT":
            yield tokens[:i] + tokens[i + 1 :]
        elif tokens[i + 1].upper() != "DISTINCT" and (counts or (token.upper() == "SELECT" and not one_row)):
            yield [*tokens[: i + 1], "DISTINCT", *tokens[i + 1 :]]
