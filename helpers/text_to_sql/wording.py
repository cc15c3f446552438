"""English words for columns, tables and dates: nouns in singular and plural, articles, templates that are filled."""

from __future__ import annotations

import random
import re
from datetime import date
from functools import cache

import yaml

from helpers.text_to_sql.domains import DATA, Column, Schema, Table
from helpers.text_to_sql.words import plural

OWN_SHARE = 0.92  # how often a column's own phrases are taken, where it has any
MONTHS = "January February March April May June July August September October November December".split()
NUMBER_WORDS = "zero one two three four five six seven eight nine ten".split()
# A plural noun without a number: "with high earnings", never "with five earnings".
SUMS = frozenset("contents costs earnings expenses figures funds grounds headquarters proceeds takings wages".split())
NO_PLURAL = frozenset(
    """access advice attendance bedding cargo cash catering circulation coverage crew damage downtime
    electricity energy experience feedback freight funding headroom heating health humidity litter machinery
    milk moisture money music parking pay postage precipitation prominence punctuality rain rainfall readership
    ridership salinity salt seating snow spending staff stock storage sugar sunshine support tonnage traffic
    turnout usage""".split()
)
# What may follow the word that is inflected: "date | of birth", "animals | treated".
AFTER_HEAD = re.compile(
    r" (?:of|per|to|in|on|at|for|from|by|around|with|behind|against|left|available|away|out|an?)\b"
    r"| (?:driven|sold|spent|won|lost|kept|held|made|run|drawn|built|taken|paid)\b"
    r"| (?!speed|breed|bed|seed|feed|shed)\w+ed$"
)


@cache
def phrasings() -> dict[str, list[str]]:
    """Kind of query, or of condition -> templates."""
    return yaml.safe_load((DATA / "phrasings.yaml").read_text(encoding="utf-8"))


def _head(noun: str) -> str:
    """The word that is inflected: "date" of "date of birth"."""
    return AFTER_HEAD.split(noun)[0].split(" ")[-1].lower()


def is_plural(noun: str) -> bool:
    """Whether a noun, or several joined by "and", takes a verb in the plural."""
    head = _head(noun)
    ends = head.endswith("s") and not head.endswith(("ss", "us", "is")) and head != "gas"
    return " and " in noun or ends or head in ("people", "feet")


def in_plural(noun: str) -> str:
    """ "date of birth" -> "dates of birth"; "rainfall" stays."""
    head = AFTER_HEAD.split(noun)[0]
    whole = is_plural(noun) or _head(noun) in NO_PLURAL or noun.startswith("number of ")
    return noun if whole else plural(head) + noun[len(head) :]


def counted(noun: str) -> str | None:
    """What a number column counts: "goals" of "goals" and of "number of goals", nothing of "price"."""
    if noun.startswith("number of "):
        return noun.removeprefix("number of ")
    head = _head(noun)
    return noun if is_plural(noun) and noun.startswith(head) and head not in SUMS else None


def quantity(noun: str) -> str:
    """The noun as something that has a size: "number of goals", "price"."""
    things = counted(noun)
    return f"number of {things}" if things else noun


def with_article(noun: str) -> str:
    """ "a price", "an offer", "earnings", "rainfall"."""
    if is_plural(noun) or _head(noun) in NO_PLURAL:
        return noun
    return f"{'an' if starts_with_vowel(noun) else 'a'} {noun}"


def starts_with_vowel(word: str) -> bool:
    """By sound, as far as spelling shows it."""
    vowel = word[:1].lower() in "aeiou" and not re.match(r"(?i)(uni|use|usa|eu|one\b)", word)
    return vowel or word[:1] == "8" or word in ("11", "18")


def fill(template: str, slots: dict[str, str], subject: str = "") -> str:
    """The template with its slots filled; of `{is|are}` the form that agrees with the noun `subject`."""
    template = re.sub(r"\{([^{}|]*)\|([^{}|]*)\}", r"\2" if is_plural(subject) else r"\1", template)
    return re.sub(r"\{(\w+)\}", lambda slot: slots.get(slot[1], slot[0]), template)


# Nouns that aren't high or large, but long; and nouns that aren't large, but high.
LENGTHS = r"(?:length|duration|time|term|commute|distance|journey|wait)"
PRICES = (
    r"(?:price|fee|cost|rate|wage|salary|pay|bill|fare|rent|temperature|floor|rank|score|rating|age|speed|percentage)"
)
SUPERLATIVES = [
    (re.compile(rf"\b(?:highest|largest|greatest|biggest) ((?:\w+ )?{LENGTHS})\b"), r"longest \1"),
    (re.compile(rf"\b(?:lowest|smallest) ((?:\w+ )?{LENGTHS})\b"), r"shortest \1"),
    (re.compile(rf"\b(?:largest|greatest|biggest) ((?:\w+ )?{PRICES})\b"), r"highest \1"),
    (re.compile(rf"\bsmallest ((?:\w+ )?{PRICES})\b"), r"lowest \1"),
    (re.compile(r"\b(?:combined|total) total\b"), "total"),
]


def fit_superlatives(text: str) -> str:
    """ "the largest length" -> "the longest length", "smallest price" -> "lowest price"."""
    for pattern, instead in SUPERLATIVES:
        text = pattern.sub(instead, text)
    return text


def put_value(phrase: str, value: str) -> str:
    """A column's phrase with its value: "with a {v} view" -> "with an inland view"."""
    phrase = re.sub(r"\ban? \{v\}", f"{'an' if starts_with_vowel(value) else 'a'} {{v}}", phrase)
    return phrase.replace("{v}", value)


class Speaker:
    """Draws words for one schema; a column keeps its noun for as long as one question lasts.

    Args:
        rng: the source of randomness.
        schema: the tables that are asked about.
        training: whether values come from what training may see, or from what is held out.
        hard: whether hard conditions come up more often than people have them, for training.
    """

    def __init__(self, rng: random.Random, schema: Schema, training: bool, hard: bool = False):
        self.rng, self.schema, self.training, self.hard = rng, schema, training, hard
        self._nouns: dict[Column, str] = {}

    def begin(self) -> None:
        """A new question: columns may be called by other nouns."""
        self._nouns = {}

    def noun(self, column: Column) -> str:
        """The plainest noun half of the time."""
        if column not in self._nouns:
            plainest = self.rng.random() < 0.5
            self._nouns[column] = column.nouns[0] if plainest else self.rng.choice(column.nouns)
        return self._nouns[column]

    def nouns(self, column: Column) -> str:
        return in_plural(self.noun(column))

    def many(self, table: Table) -> str:
        return table.many[0] if self.rng.random() < 0.7 else self.rng.choice(table.many)

    def number(self, n: int) -> str:
        """A small number in digits or as a word."""
        return str(n) if self.rng.random() < 0.55 else NUMBER_WORDS[n]

    def day(self, day: date) -> str:
        """A date as people write it; more often than not as the table does."""
        month = MONTHS[day.month - 1]
        return self.rng.choice([str(day)] * 3 + [f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}"])

    def phrase(self, column: Column, use: str, generic: str) -> str:
        """One of the column's own phrases for this use, or of everybody's; its value is still to be put in."""
        own = column.phrases.get(use, ())
        return self.rng.choice(own) if own and self.rng.random() < OWN_SHARE else self.generic(column, generic)

    def generic(self, column: Column, kind: str) -> str:
        """A phrase of everybody's. Of what a column counts people say "with more than 5 goals"."""
        noun = self.noun(column)
        things = counted(noun) if column.is_number else None
        templates = phrasings().get(f"{kind}_counted") if things else None
        slots = {"say": things if templates else noun, "a_say": with_article(noun)}
        return fill(self.rng.choice(templates or phrasings()[kind]), slots, noun)
