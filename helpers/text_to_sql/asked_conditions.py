"""A condition as a question says it and as SQL: "from Norway" and `country = 'Norway'`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from helpers.text_to_sql.domains import Table
from helpers.text_to_sql.sql import Ref

CLAUSES = ("that", "who", "whose", "where")  # begin a phrase that holds a verb
NEW_SUBJECTS = (
    "nobody people somebody critics the we you more fewer less over under".split()
)  # begin a clause with a subject of its own
LIGHT = ("of", "by", "from", "in", "at", "on", "for", "to")  # begin a phrase that stands right after the noun


@dataclass(frozen=True)
class Condition:
    """What a phrase after the noun (or an adjective before it) means in SQL.

    `kind`: a special one ("null", "like", "date", "in", "not in", "or", "subquery"); `tables`: those that it needs
    beside its column's own; `more`: further conditions in the same phrase, where that speaks of another table's rows.
    """

    ref: Ref
    phrase: str
    kind: str = ""
    adjective: str = ""
    tables: tuple[Table, ...] = ()
    more: tuple[Ref, ...] = ()
    is_nested: bool = False  # the phrase holds a noun with conditions of its own

    @property
    def opening(self) -> str:
        return self.phrase.split(" ", 1)[0]

    @property
    def is_clause(self) -> bool:
        return self.opening in CLAUSES

    @property
    def is_relative(self) -> bool:
        """Whether its verb is in the plural: "that cost over 5"."""
        return self.opening in ("that", "who")

    @property
    def predicate(self) -> str:
        """ "cost over 5" of "that cost over 5"; nothing of "that nobody rents", which has another subject."""
        rest = self.phrase.partition(" ")[2]
        has_subject = not rest[:1].islower() or rest.split()[0] in NEW_SUBJECTS
        return rest if self.is_relative and not has_subject else ""

    @property
    def refs(self) -> tuple[Ref, ...]:
        return (self.ref, *self.more)


def is_plain(condition: Condition) -> bool:
    """Whether it can stand in "this or that"."""
    return not (condition.adjective or condition.more or condition.tables or condition.kind == "null")


def as_list(condition: Condition) -> Condition:
    """ "Oslo or Rome" as IN, where OR beside AND would bind too weakly."""
    if condition.kind != "or":
        return condition
    values = ", ".join(part.split(" = ", 1)[1] for part in condition.ref.form.split(" OR "))
    return replace(condition, ref=replace(condition.ref, form=f"{{c}} IN ({values})"), kind="in")
