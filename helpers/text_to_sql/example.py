"""One question about some tables, and the query that answers it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """`context` (CREATE TABLE statements), `question`, `answer` (SQL) and the kind of query."""

    id: str
    context: str
    question: str
    answer: str
    kind: str = ""
