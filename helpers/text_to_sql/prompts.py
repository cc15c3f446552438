"""The prompt and the answer, in the one place that says how they look.

The task is one message of the user's, in the words of the model's own chat template:

    Answer the question with one SQLite query. Use only these tables.

    CREATE TABLE ship (name TEXT, age INTEGER)

    How many ships are older than 5?

The base model answers in prose with the SQL in a fence; the fine-tuned one with the SQL alone.
"""

from __future__ import annotations

import re

from helpers.text_to_sql.example import Example

INSTRUCTION = "Answer the question with one SQLite query. Use only these tables."


def prompt_for(tokenizer, example: Example) -> str:
    """The whole prompt, special tokens included, up to where the model takes over."""
    task = f"{INSTRUCTION}\n\n{example.context}\n\n{example.question}"
    if tokenizer.chat_template is None:  # a model without instruction tuning goes on with a text
        return f"{tokenizer.bos_token or ''}{task}\n```sql\n"
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": task}], tokenize=False, add_generation_prompt=True
    )


def extract_sql(text: str) -> str | None:
    """The SQL in an answer: what the first fence holds; where the text begins with SQL, what stands before a fence;
    else from the first SELECT to a semicolon, a blank line or the end. None where there is none."""
    begins = re.match(r"\s*(SELECT\b|WITH\s+\w+(\s*\([^)]*\))?\s+AS\b)", text, re.IGNORECASE)
    if begins:
        text = text.split("```")[0]
    fenced = re.search(r"```(?:sql)?\s*\n?(.*?)(?:```|$)", text, re.DOTALL | re.IGNORECASE)
    match = fenced or re.search(
        r"\b((?:SELECT\b|WITH\s+\w+(?:\s*\([^)]*\))?\s+AS\b)(?:'[^']*'|--[^\n]*|[^;'])*?)(?:;|\n\s*\n|$)",
        text,
        re.DOTALL | re.IGNORECASE,
    )
    sql = match.group(1).strip().rstrip(";").strip() if match else ""
    return sql or None
