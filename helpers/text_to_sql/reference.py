"""Reading a reference query: its tokens and clauses, the columns that it names and what it compares them with."""

from __future__ import annotations

import re

from helpers.text_to_sql.sandbox import Column, schema_of

TOKEN = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|-?\d+(?:\.\d+)?|[^\W\d]\w*(?:\.(?:[^\W\d]\w*|"[^"]*"))?|[<>!=]=|<>|\S"""
)
CLAUSES = ("SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "EXCEPT", "INTERSECT")
INSIDE = {">": (1, 2), ">=": (0, 1), "<": (-1, -2), "<=": (0, -1), "=": (0,), "!=": (-1, 1)}  # steps from the literal


def tokens_of(sql: str) -> list[str]:
    return TOKEN.findall(sql.strip().rstrip(";"))


def clauses_of(tokens: list[str]) -> dict[str, tuple[int, int]]:
    """Clause -> its first token and the one after its last, of the outermost query."""
    depth, starts = 0, []
    for i, token in enumerate(tokens):
        depth += (token == "(") - (token == ")")
        if depth == 0 and token.upper() in CLAUSES:
            starts.append((token.upper(), i))
    ends = [i for _, i in starts[1:]] + [len(tokens)]
    return {name: (i, end) for (name, i), end in zip(starts, ends)}


def literal_of(token: str) -> int | float | str | None:
    if token[0] in "'\"":  # a string in double quotes, too: SQLite takes it where no column has that name
        return token[1:-1].replace(token[0] * 2, token[0])
    if re.fullmatch(r"-?\d+(\.\d+)?", token):
        return float(token) if "." in token else int(token)
    return None


class Reference:
    """What mutants and fillings have to know about a query: the column that each token names, what the columns are
    compared with, which of them join, sort and group, and the numbers in HAVING and LIMIT."""

    def __init__(self, sql: str, context: str) -> None:
        self.tokens, self.schema = tokens_of(sql), schema_of(context)
        self.clauses, self.tables = clauses_of(self.tokens), self._tables()
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
            values = [v.strip("%") if isinstance(v, str) else v for t in right if (v := literal_of(t)) is not None]
            operators = [">=", "<="] if operator == "BETWEEN" else [operator if operator in INSIDE else "="]
            self.compared.setdefault(column, []).extend(zip(operators, values))

    def _in_clause(self, name: str) -> set[Column]:
        return {column for column in self.columns[slice(*self.clauses.get(name, (0, 0)))] if column}

    def _number(self, name: str) -> int:
        found = [literal_of(token) for token in self.tokens[slice(*self.clauses.get(name, (0, 0)))]]
        return min(20, max((n for n in found if isinstance(n, int)), default=0))
