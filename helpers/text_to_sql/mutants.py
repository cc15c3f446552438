"""The likely mistakes in a query, each as SQL that runs: what an answer is most often confused with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from helpers.text_to_sql.conditions import SAME_OPERATOR
from helpers.text_to_sql.reference import NULL_AWARE, OUTER, Reference, literal_of
from helpers.text_to_sql.sandbox import answer_of
from helpers.text_to_sql.tables import Column, open_tables, quoted

MISTAKEN = {
    ">": [">=", "<"],
    ">=": [">", "<="],
    "<": ["<=", ">"],
    "<=": ["<", ">="],
    "=": ["!="],
    "!=": ["="],
    "AND": ["OR"],
    "OR": ["AND"],
    "ASC": ["DESC"],
    "DESC": ["ASC"],
    "UNION": ["INTERSECT", "EXCEPT"],
    "INTERSECT": ["UNION", "EXCEPT"],
    "EXCEPT": ["UNION", "INTERSECT"],
}
AGGREGATES = ("MIN", "MAX", "AVG", "SUM", "COUNT")
MAX_OTHERS = 6  # columns or tables, tried in the place of one


def mutants(reference_sql: str, context: str) -> list[str]:
    """The likely mistakes in a query, each as SQL that runs: wrong operator, connector, column, table, aggregate, bound
    or direction, a condition or clause dropped, DISTINCT dropped or added, whole division for an average, an equal
    sign for LIKE, NULLs counted or forgotten. Some may be equivalent to the reference."""
    reference = Reference(reference_sql, context)
    made = [" ".join(tokens) for way in WAYS for tokens in way(reference)]
    with closing(open_tables(context, {})) as connection:
        suspects = [sql for sql in dict.fromkeys(made) if sql != " ".join(reference.tokens)]
        return [sql for sql in suspects if answer_of(sql, connection, True) is not None]


def _with(reference: Reference, start: int, end: int, *instead: str) -> list[str]:
    """The reference's tokens with others in the place of tokens start to end - 1."""
    return [*reference.tokens[:start], *instead, *reference.tokens[end:]]


def _is_range(reference: Reference, i: int) -> bool:
    return i > 1 and reference.upper[i - 2] == "BETWEEN"  # the AND of BETWEEN a AND b joins no conditions


def _may_be_null(reference: Reference, column: Column) -> bool:
    return column in reference.nullable and not (column.key or column.required)


def _replaced(reference: Reference) -> Iterator[list[str]]:
    for i in range(len(reference.tokens)):
        for other in _instead(reference, i):
            yield _with(reference, i, i + 1, other)


def _instead(reference: Reference, i: int) -> list[str]:
    """What a mistaken query may have in the place of token i."""
    token, upper = reference.tokens[i], reference.upper[i]
    before, after = reference.upper[max(0, i - 2) : i], reference.upper[i + 1 : i + 2]
    if i in reference.table_at:
        others = [quoted(table) for table in reference.schema if table != reference.table_at[i]]
        return others[:MAX_OTHERS]
    if column := reference.columns[i]:
        return _other_columns(reference, column, token, counted=before == ["COUNT", "("])
    if upper in AGGREGATES and after == ["("]:
        return [name for name in AGGREGATES if name != upper]
    if upper in ("REAL", "FLOAT") and before[-1:] == ["AS"]:
        return ["INTEGER"]
    if (operator := SAME_OPERATOR.get(token, upper)) in MISTAKEN:
        return [] if operator == "AND" and _is_range(reference, i) else MISTAKEN[operator]
    value = literal_of(token)
    in_having = i in range(*reference.clauses.get("HAVING", (0, 0)))
    if isinstance(value, int) and (in_having or before[-1:] in (["LIMIT"], ["BETWEEN"]) or _is_range(reference, i - 1)):
        return [str(value + by) for by in (-1, 1) if value + by > 0]
    if isinstance(value, float) and value.is_integer() and ({"*", "/"} & {*before[-1:], *after}):
        return [str(int(value))]  # 100.0 * a / b and 100 * a / b
    return []


def _other_columns(reference: Reference, column: Column, token: str, counted: bool) -> list[str]:
    if counted and not _may_be_null(reference, column):
        return []  # without NULLs COUNT(a) is COUNT(b)
    alias = token[: token.rfind(".") + 1] if token[0] not in '"`[' else ""
    others = [alias + quoted(other.name) for other in reference.schema[column.table] if other != column]
    return others[:MAX_OTHERS]


def _dropped(reference: Reference) -> Iterator[list[str]]:
    tokens, upper = reference.tokens, reference.upper
    for name, (start, end) in reference.clauses.items():
        if name not in ("SELECT", "FROM"):
            yield _with(reference, start, end)
        if name in ("WHERE", "HAVING"):
            joints = [i for i in range(start, end) if upper[i] in ("AND", "OR") and not _is_range(reference, i)]
            for left, right in zip([start, *joints], [*joints, end]):
                cut = (left, right) if left > start else (start + 1, right + 1)  # with the AND before it, or after
                yield _with(reference, *cut)
        if name == "ORDER":
            for i in range(start + 2, end):  # ascending without a word for it: add DESC
                if tokens[i + 1 : i + 2] in ([], [","], ["LIMIT"]) and upper[i] not in ("ASC", "DESC"):
                    yield _with(reference, i + 1, i + 1, "DESC")


def _distinct_or_not(reference: Reference) -> Iterator[list[str]]:
    upper = reference.upper
    one_row = "GROUP" not in reference.clauses and upper[1:2] and upper[1] in AGGREGATES
    for i, token in enumerate(upper[:-1]):
        counts = token == "(" and upper[i - 1] in ("COUNT", "SUM", "AVG")
        if token == "DISTINCT":
            yield _with(reference, i, i + 1)
        elif upper[i + 1] != "DISTINCT" and (counts or (token == "SELECT" and not one_row)):
            yield _with(reference, i + 1, i + 1, "DISTINCT")


def _whole_division(reference: Reference) -> Iterator[list[str]]:
    """SUM / COUNT of whole numbers is a whole number; an average is not."""
    for i, column in enumerate(reference.columns):
        if column and column.whole and reference.upper[max(0, i - 2) : i] == ["AVG", "("]:
            name = reference.tokens[i]
            yield _with(reference, i - 2, i + 2, "SUM", "(", name, ")", "/", "COUNT", "(", name, ")")


def _other_patterns(reference: Reference) -> Iterator[list[str]]:
    """Equal to the text, begins with it, ends with it, contains it: all for a LIKE; contains it for an equal sign."""
    for i, upper in enumerate(reference.upper[:-1]):
        literal = literal_of(reference.tokens[i + 1])
        if upper not in ("LIKE", "=") or not isinstance(literal, str) or reference.columns[i + 1]:
            continue
        pattern = literal.replace("'", "''")
        text = pattern.strip("%")
        for other in (text, f"{text}%", f"%{text}", f"%{text}%") if upper == "LIKE" else (f"%{text}%",):
            if other != pattern:
                yield _with(reference, i, i + 2, "LIKE", f"'{other}'")


def _nulls(reference: Reference) -> Iterator[list[str]]:
    upper = reference.upper
    for i, token in enumerate(upper):
        column = reference.columns[i]
        if token == "NOT":
            yield _with(reference, i, i + 1)
        elif token in ("LIKE", "IN", "BETWEEN") and upper[i - 1] != "NOT":
            yield _with(reference, i, i, "NOT")
        elif token == "IS" and upper[i + 1 : i + 2] == ["NULL"]:
            yield _with(reference, i + 1, i + 1, "NOT")
            yield _with(reference, i, i + 2, "=", "''")
        elif token == "IS" and upper[i + 1 : i + 3] == ["NOT", "NULL"]:
            yield _with(reference, i, i + 3, "!=", "''")
        elif column and upper[i + 1 : i + 2] == [")"] and upper[max(0, i - 2) : i] == ["COUNT", "("]:
            if _may_be_null(reference, column):
                yield _with(reference, i, i + 1, "*")
        elif token in NULL_AWARE[1:] and column is None and upper[i + 3 : i + 4] == [","]:
            if ")" in upper[i:]:
                yield _with(reference, i, upper.index(")", i) + 1, reference.tokens[i + 2])


def _shorter_lists(reference: Reference) -> Iterator[list[str]]:
    """IN (a, b, c) without one of them."""
    for i, upper in enumerate(reference.upper):
        if upper == "IN" and ")" in reference.upper[i:]:
            for comma in range(i, reference.upper.index(")", i)):
                if reference.tokens[comma] == ",":
                    yield _with(reference, comma, comma + 2)
                    if reference.tokens[comma - 2] == "(":
                        yield _with(reference, comma - 1, comma + 1)


def _other_joins(reference: Reference) -> Iterator[list[str]]:
    """An outer join for an inner one and the other way round; one table alone."""
    upper, tables = reference.upper, list(reference.table_at.values())
    where = {column.table for column in reference.columns[slice(*reference.clauses.get("WHERE", (0, 0)))] if column}
    if len(tables) > 1 and "FROM" in reference.clauses:
        start, end = reference.clauses["FROM"]
        others = [table for table in reference.schema if end > start + 2 or table != reference.table_at.get(start + 1)]
        yield from (_with(reference, start + 1, end, quoted(table)) for table in others[:MAX_OTHERS])
    for i, token in enumerate(upper):
        if token in OUTER:
            yield _with(reference, i, i + 1 + (upper[i + 1 : i + 2] == ["OUTER"]))
        elif token == "JOIN" and upper[i - 1] not in OUTER | {"OUTER", "CROSS", "NATURAL"} and where <= {tables[0]}:
            # With a condition on the joined table both joins give the same.
            yield _with(reference, i - (upper[i - 1] == "INNER"), i, "LEFT")


WAYS = (
    _replaced,
    _dropped,
    _distinct_or_not,
    _whole_division,
    _other_patterns,
    _nulls,
    _shorter_lists,
    _other_joins,
)
