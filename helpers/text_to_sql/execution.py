"""Execution accuracy: a prediction is right when it returns what the reference returns, on tables filled for that
(filling.py), whatever it is and whatever it tries (sandbox.py). Notebook 00."""

from __future__ import annotations

from contextlib import closing

from helpers.text_to_sql.filling import filled_database
from helpers.text_to_sql.reference import clauses_of, tokens_of
from helpers.text_to_sql.sandbox import answer_of


def is_correct(predicted_sql: str | None, context: str, reference_sql: str, seed: int = 0) -> bool:
    """Whether the prediction returns the reference's rows (in its order if it has ORDER BY) on the tables that `seed`
    fills. Whatever the prediction is, the answer is True or False; a bad context or reference raises ExecutionError."""
    ordered = "ORDER" in clauses_of(tokens_of(reference_sql))
    with closing(filled_database(context, reference_sql, seed)) as connection:
        expected = answer_of(reference_sql, connection, ordered)
        found = answer_of(predicted_sql, connection, ordered) if isinstance(predicted_sql, str) else None
    return found is not None and found == expected
