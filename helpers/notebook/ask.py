"""`ask(schema, question)`: the model's answer as it is written, and what its SQL returns on a table made for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from helpers.decoding.completion import Completion
from helpers.decoding.generate import stream
from helpers.errors import CourseError
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.filling import filled_database
from helpers.text_to_sql.prompts import extract_sql, prompt_for
from helpers.text_to_sql.sandbox import ExecutionError, run_sql

MAX_ROWS = 8  # of a result that is printed


def make_ask(model, tokenizer, max_new_tokens: int = 256) -> Callable[[str, str], Completion]:
    """The function for a notebook: it prints the answer while it is written, then the rows that its SQL returns."""

    def ask(schema: str, question: str) -> Completion:
        if "create table" not in schema.lower():
            raise CourseError("The schema has to be one or more CREATE TABLE statements, separated by semicolons.")
        completion = Completion(0)
        prompt = prompt_for(tokenizer, Example("asked", schema.strip(), question.strip(), ""))
        for piece in stream(model, tokenizer, prompt, completion=completion, max_new_tokens=max_new_tokens):
            print(piece, end="", flush=True)
        print(f"\n\n{show_rows(schema, extract_sql(completion.text))}")
        return completion

    return ask


def show_rows(schema: str, sql: str | None) -> str:
    """What a query returns on seeded rows (invented, chosen so that the query finds some), as text."""
    if sql is None:
        return "There is no SQL in this answer."
    try:
        with closing(filled_database(schema, sql)) as database:
            rows = run_sql(sql, database)
    except ExecutionError as error:
        return f"The SQL does not run: {error}"
    return f"On invented rows it returns {len(rows)} row{'s' * (len(rows) != 1)}:\n{as_text(rows[:MAX_ROWS])}" + (
        "\n..." if len(rows) > MAX_ROWS else ""
    )


def as_text(rows: Sequence[Sequence]) -> str:
    """Rows as aligned columns."""
    cells = [[str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  " + "  ".join(value.ljust(w) for value, w in zip(row, widths)).rstrip() for row in cells)
