"""Questions in natural English with their SQL, drawn from a seed: schemas and phrasings are data, queries.py says what
can be asked (notebook 00)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from helpers.text_to_sql.asked import Asked
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.handwritten import handwritten_forms, masked
from helpers.text_to_sql.queries import HARD_KINDS, KINDS, kind_of
from helpers.text_to_sql.sql import text_literals
from helpers.text_to_sql.variants import HARD_RARE_SHARE, RARE_SHARE, draw_schema
from helpers.text_to_sql.wording import Speaker, fill, fit_superlatives, phrasings

OWN_QUESTIONS = 0.65  # how often a question that a column brings itself is taken, where there is one
MAX_TRIES = 200
LAST = re.compile(r"\{(them|best|bests|children|pred)\}(?=$|[.,:;?!]| - | \()")  # nothing follows in the same breath
NOUN_PHRASES = re.compile(r"\{(them|best|bests|children)\}")


def templates(asked: Asked) -> list[str]:
    """The templates that suit what fills them: a long noun phrase stands last, only what has a name is "called"."""
    suited = phrasings()[asked.template]
    if asked.is_long:
        suited = [t for t in suited if len(LAST.findall(t)) >= len(NOUN_PHRASES.findall(t))]
    if not asked.has_names:
        suited = [t for t in suited if not re.search(r"\b(name|named|names|called)\b", t)]
    return suited


def _worded(rng: random.Random, asked: Asked, values: list[str]) -> str:
    """The question; one that begins with a value keeps it as the query spells it."""
    if asked.own and (not asked.template or rng.random() < OWN_QUESTIONS):
        question = rng.choice(asked.own)
        question += "?" if not question.endswith("?") and rng.random() < 0.8 else ""
    else:
        question = fit_superlatives(fill(rng.choice(templates(asked)), asked.slots, asked.subject))
    question = re.sub(r"\b(the|a) (the|an?) ", r"\1 ", re.sub(r"\s+", " ", question)).strip()
    question = re.sub(r"\b[Tt]he The ", "The ", question)
    if rng.random() < 0.8 and not question.startswith(tuple(values)):
        question = question[0].upper() + question[1:]
    if rng.random() < 0.12:
        question = question.rstrip("?.")
    return question


def question_group(
    seed: int | str, count: int = 4, split: str = "train", rare_share: float | None = None, hard: bool = False
) -> list[Example]:
    """Up to `count` different examples about one schema of the split, all drawn from `seed`.

    `hard`: more joins, lists, patterns, second conditions and rare words than people use, since they take longer to
    learn.
    """
    rng = random.Random(seed)
    if rare_share is None:
        rare_share = (HARD_RARE_SHARE if hard else RARE_SHARE) if split == "train" else 0.0
    schema, context = draw_schema(rng, split, rare_share)
    speaker = Speaker(rng, schema, split == "train", hard)
    kinds = HARD_KINDS if hard else KINDS
    examples: dict[str, Example] = {}
    for _ in range(MAX_TRIES):
        if len(examples) == count:
            break
        ask = rng.choices(list(kinds), list(kinds.values()))[0]
        speaker.begin()
        asked = ask(speaker, rng.choice(list(schema.tables.values())))
        if asked is None:
            continue
        sql = asked.query.sql(schema)
        question = _worded(rng, asked, text_literals(sql))
        if question in examples or masked(context, question) in handwritten_forms():
            continue
        examples[question] = Example(f"{seed}-{len(examples)}", context, question, sql, kind_of(asked, sql))
    return list(examples.values())


def questions(seed: int, split: str = "train", **options) -> Iterator[Example]:
    """Endless single examples, one to a schema, from one seed."""
    rng = random.Random(seed)
    while True:
        yield from question_group(rng.getrandbits(48), 1, split, **options)
