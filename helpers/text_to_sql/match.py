"""Whether a query is spelled as the reference: stricter than whether it returns the same (notebook 03).

Publications report these shares more often than execution accuracy, since nothing has to run. They count a right query
in other words as wrong.
"""

from __future__ import annotations

import re

from helpers.text_to_sql.prompts import extract_sql

QUOTED = re.compile(r"""('(?:[^']|'')*'|"[^"]*")""")


def is_exact_match(text: str, reference: str) -> bool:
    """Whether a whole answer is the reference, character for character, but for the space around it."""
    return text.strip() == reference.strip()


def is_normalized_match(text: str, reference: str) -> bool:
    """Whether the SQL in an answer is the reference but for capital letters, spaces and a semicolon at its end."""
    sql = extract_sql(text)
    return sql is not None and normalized(sql) == normalized(reference)


def normalized(sql: str) -> str:
    """Lower case outside of quotes, one space between words and none around signs, no semicolon at the end."""
    parts = QUOTED.split(sql)
    plain = (re.sub(r"\s+", " ", part.lower()) for part in parts[::2])
    parts[::2] = (re.sub(r"\s*([(),;=<>!*/+-]+)\s*", r"\1", part) for part in plain)
    return "".join(parts).strip().rstrip(";").rstrip()
