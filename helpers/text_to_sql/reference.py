"""Reading a reference query: its tokens and clauses, the columns that it names and what it asks of them."""

from __future__ import annotations

import re
from itertools import takewhile

from helpers.text_to_sql.conditions import EXCLUDING, SAME_OPERATOR, STEPS, Condition, Literal
from helpers.text_to_sql.tables import Column, schema_of

PART = r'(?:[^\W\d]\w*|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\])'
TOKEN = re.compile(
    rf"--[^\n]*|/\*.*?\*/|[xX]?'(?:[^']|'')*'|{PART}(?:\.{PART})?|-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
    r"|[<>!=]=|<>|<<|>>|\|\||\S",
    re.DOTALL,
)
CLAUSES = ("SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "EXCEPT", "INTERSECT")
NULL_AWARE = ("COUNT", "COALESCE", "IFNULL", "NULLIF")  # their value depends on whether a column is NULL
OUTER = {"LEFT", "RIGHT", "FULL"}


def tokens_of(sql: str) -> list[str]:
    """The tokens of a query without its comments; joined by spaces they are the same query."""
    return [token for token in TOKEN.findall(sql.strip().rstrip(";")) if not token.startswith(("--", "/*"))]


def clauses_of(tokens: list[str]) -> dict[str, tuple[int, int]]:
    """Clause -> its first token and the one after its last, of the outermost query."""
    depth, starts = 0, []
    for i, token in enumerate(tokens):
        depth += (token == "(") - (token == ")")
        if depth == 0 and token.upper() in CLAUSES:
            starts.append((token.upper(), i))
    ends = [i for _, i in starts[1:]] + [len(tokens)]
    return {name: (i, end) for (name, i), end in zip(starts, ends)}


def has_order(sql: str) -> bool:
    """Whether the order of the rows is part of the answer."""
    return "ORDER" in clauses_of(tokens_of(sql))


def literal_of(token: str) -> Literal:
    """The number or text that a token is; None where it is something else."""
    if re.fullmatch(r"""'.*'|"(?:[^"]|"")*\"""", token, re.DOTALL):
        # A string in double quotes, too: SQLite takes it where no column has that name.
        return token[1:-1].replace(token[0] * 2, token[0])
    if re.fullmatch(r"-?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", token):
        return int(token) if re.fullmatch(r"-?\d+", token) else float(token)
    return None


def unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name[0] in '"`[' else name


def name_parts(token: str) -> tuple[str, str] | None:
    """(alias or "", name) of a token that can name a column; None where it can't."""
    match = re.fullmatch(rf"(?:({PART})\.)?({PART})", token, re.DOTALL)
    return (unquoted(match[1]) if match[1] else "", unquoted(match[2])) if match else None


class Reference:
    """What mutants and fillings have to know about a query: the column that each token names, what is asked of the
    columns, which of them join, sort, group, are added up or may be NULL, and the numbers in HAVING and LIMIT."""

    def __init__(self, sql: str, context: str) -> None:
        self.tokens, self.schema = tokens_of(sql), schema_of(context)
        self.upper = [token.upper() for token in self.tokens]
        self.clauses = clauses_of(self.tokens)
        self.table_at = self._tables()
        self.aliases = self._aliases()
        self.columns = [self._column_named(token) for token in self.tokens]
        self.has_outer_join = bool(OUTER & set(self.upper))
        self.conditions: dict[Column, list[Condition]] = {}
        self.joined: set[Column] = set()
        self.summed: set[Column] = set()
        self.nullable: set[Column] = set()
        for i, column in enumerate(self.columns):
            if column:
                self._read_condition(column, i + 1)
                self._read_use(column, i)
        self.sorted, self.grouped = self._in_clause("ORDER"), self._in_clause("GROUP")
        self.group_size, self.limit = self._number("HAVING"), self._number("LIMIT")

    def _tables(self) -> dict[int, str]:
        """Place of a token after FROM, JOIN or a comma -> the table that it names."""
        names = {name.lower(): name for name in self.schema}
        places = {}
        for i, token in enumerate(self.tokens):
            name = names.get(unquoted(token).lower())
            if name and i and self.upper[i - 1] in ("FROM", "JOIN", ","):
                places[i] = name
        return places

    def _aliases(self) -> dict[str, str]:
        """Alias or name, lower case -> table."""
        aliases = {}
        for i, table in self.table_at.items():
            following = [token for token in self.tokens[i + 1 : i + 3] if token.upper() != "AS"]
            aliases |= {unquoted(token).lower(): table for token in following[:1]} | {table.lower(): table}
        return aliases

    def _column_named(self, token: str) -> Column | None:
        alias, name = name_parts(token) or ("", "")
        tables = [self.aliases.get(alias.lower())] if alias else self.aliases.values()
        columns = (column for table in tables if table for column in self.schema[table])
        return next((column for column in columns if column.name.lower() == name.lower()), None)

    def _read_condition(self, column: Column, after: int) -> None:
        after += self.tokens[after : after + 1] == [")"]  # AVG(column) > 5 says where the column's values lie, too
        operator = SAME_OPERATOR.get(self.upper[after], self.upper[after]) if after < len(self.tokens) else ""
        if operator in ("NOT", "IS") and self.upper[after + 1 : after + 2] in (["NOT"], ["IN"], ["LIKE"], ["BETWEEN"]):
            operator, after = f"{operator} {self.upper[after + 1]}", after + 1
        if operator not in (*STEPS, *EXCLUDING, "BETWEEN", "NOT BETWEEN", "LIKE", "IN", "IS"):
            return
        self.joined |= self._joined_to(column, after + 1)
        if operator.startswith("IS"):
            self.conditions.setdefault(column, []).append(Condition(operator, None))
            self.nullable.add(column)
            return
        operators = {"BETWEEN": (">=", "<="), "IN": ("=",), "NOT BETWEEN": ("<", ">")}.get(operator, (operator,))
        literals = self._literals(after + 1, operator)
        self.conditions.setdefault(column, []).extend(
            Condition(operators[i % len(operators)], literal) for i, literal in enumerate(literals)
        )

    def _literals(self, start: int, operator: str) -> list[Literal]:
        """What an operator compares with: one literal, the two of BETWEEN, or the list of IN."""
        if self.upper[start : start + 2] == ["(", "SELECT"]:
            return []
        window = self.tokens[start : start + 4]
        if operator.endswith("IN"):
            window = list(takewhile(lambda token: token != ")", self.tokens[start:]))
        columns = self.columns[start : start + len(window)]
        literals = [literal_of(token) for token, column in zip(window, columns) if not column]
        literals = [literal for literal in literals if literal is not None]
        return literals if operator.endswith("IN") else literals[: 2 if operator.endswith("BETWEEN") else 1]

    def _joined_to(self, column: Column, start: int) -> set[Column]:
        """Both columns where a column is compared with another one, or with a query for another one."""
        if self.upper[start : start + 2] == ["(", "SELECT"]:
            start += 2 + (self.upper[start + 2 : start + 3] == ["DISTINCT"])
        other = self.columns[start] if start < len(self.columns) else None
        return {column, other} if other and other != column else set()

    def _read_use(self, column: Column, i: int) -> None:
        before = self.upper[max(0, i - 2) : i]
        if before == ["USING", "("]:
            same_name = (other for columns in self.schema.values() for other in columns if other.name == column.name)
            self.joined |= {other for other in same_name if other.table in self.aliases.values()}
        elif before[-1:] == ["("] and before[0] in ("SUM", "AVG", "TOTAL"):
            self.summed.add(column)
        elif before[-1:] == ["("] and before[0] in NULL_AWARE:
            self.nullable.add(column)

    def _in_clause(self, name: str) -> set[Column]:
        return {column for column in self.columns[slice(*self.clauses.get(name, (0, 0)))] if column}

    def _number(self, name: str) -> int:
        literals = [literal_of(token) for token in self.tokens[slice(*self.clauses.get(name, (0, 0)))]]
        return min(20, max((n for n in literals if isinstance(n, int)), default=0))
