"""The likely mistakes in a query, each as SQL that runs: what an answer is most often confused with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from helpers.text_to_sql.reference import Reference, literal_of
from helpers.text_to_sql.sandbox import answer_of, open_tables, quoted

MISTAKEN = {">": [">=", "<"], ">=": [">", "<="], "<": ["<=", ">"], "<=": ["<", ">="], "=": ["!="], "!=": ["="]}
AGGREGATES = ("MIN", "MAX", "AVG", "SUM", "COUNT")


def mutants(reference_sql: str, context: str) -> list[str]:
    """The likely mistakes in a query, each as SQL that runs: wrong operator, connector, column, aggregate, bound or
    direction, a condition or clause dropped, DISTINCT dropped or added. Some may be equivalent to the reference."""
    reference = Reference(reference_sql, context)
    made = [" ".join(tokens) for way in (_replaced, _dropped, _distinct_or_not) for tokens in way(reference)]
    with closing(open_tables(context, {})) as connection:
        suspects = [sql for sql in dict.fromkeys(made) if sql != " ".join(reference.tokens)]
        return [sql for sql in suspects if answer_of(sql, connection, True) is not None]


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
        return [alias + quoted(c.name) for c in reference.schema[column.table] if c != column][:6]
    if upper in AGGREGATES and tokens[i + 1 : i + 2] == ["("]:
        return [name for name in AGGREGATES if name != upper]
    if upper in ("AND", "OR") and not _is_range(tokens, i):
        return ["OR" if upper == "AND" else "AND"]
    if upper in ("ASC", "DESC"):
        return ["DESC" if upper == "ASC" else "ASC"]
    counted = i in range(*reference.clauses.get("HAVING", (0, 0))) or before[-1:] in (["LIMIT"], ["BETWEEN"])
    if isinstance(value := literal_of(token), int) and (counted or _is_range(tokens, i - 1)):
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
