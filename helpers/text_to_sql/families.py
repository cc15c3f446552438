"""Four families of queries, by the clause that makes them hard: few enough for one small chart (notebook 00)."""

from __future__ import annotations

import re
from collections.abc import Sequence

SEVERAL, ORDERED, NUMBER, ROWS = (
    "several tables, or a query in a query",
    "groups, or an order",
    "one number",
    "rows by their conditions",
)
FAMILIES = (ROWS, NUMBER, ORDERED, SEVERAL)


def family_of(sql: str) -> str:
    """The first that applies: several tables or SELECTs; GROUP BY or ORDER BY; an aggregate; else plain rows."""
    bare = re.sub(r"'(?:[^']|'')*'", "''", sql.upper())  # a value may hold any word
    if re.search(r"\bJOIN\b", bare) or len(re.findall(r"\bSELECT\b", bare)) > 1:
        return SEVERAL
    if re.search(r"\b(GROUP|ORDER)\s+BY\b", bare):
        return ORDERED
    return NUMBER if re.search(r"\b(COUNT|SUM|AVG|MIN|MAX)\s*\(", bare) else ROWS


def by_family(queries: Sequence[str], right: Sequence[bool]) -> dict[str, tuple[int, int]]:
    """(right, all) answers of each family that occurs."""
    pairs = [(family_of(sql), good) for sql, good in zip(queries, right, strict=True)]
    counts = {family: [good for name, good in pairs if name == family] for family in FAMILIES}
    return {family: (sum(goods), len(goods)) for family, goods in counts.items() if goods}
