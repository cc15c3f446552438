"""Questions in natural English with their SQL, drawn from a seed: schemas and phrasings are data, queries.py says what
can be asked (notebook 00)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from helpers.text_to_sql.generator import Example
from helpers.text_to_sql.handwritten import handwritten_forms, masked
from helpers.text_to_sql.noun_phrases import Speaker, phrasings
from helpers.text_to_sql.queries import KINDS, Asked
from helpers.text_to_sql.variants import RARE_SHARE, draw_schema

OWN_QUESTIONS = 0.65  # how often a question that a column brings itself is taken, where there is one
MAX_TRIES = 200


def _worded(rng: random.Random, asked: Asked) -> str:
    if asked.own and (not asked.template or rng.random() < OWN_QUESTIONS):
        question = rng.choice(asked.own)
        question += "?" if not question.endswith("?") and rng.random() < 0.8 else ""
    else:
        question = rng.choice(phrasings()[asked.template])
        for slot, words in asked.slots.items():
            question = question.replace("{" + slot + "}", words)
    question = re.sub(r"\b(the|a) (the|an?) ", r"\1 ", re.sub(r"\s+", " ", question)).strip()
    if rng.random() < 0.8:
        question = question[0].upper() + question[1:]
    if rng.random() < 0.12:
        question = question.rstrip("?.")
    return question


def _kind(asked: Asked, sql: str) -> str:
    joins, special = sql.count(" JOIN "), sorted(asked.kinds - {"or"})
    if joins > 1:
        return "three tables"
    if special:
        return special[0]
    if joins:
        return "join"
    return {"which_pred": "which", "count_pred": "count", "best_columns": "best", "top_columns": "top",
            "sorted_columns": "sorted", "star_one": "star", "ask_two": "ask_one"}.get(asked.template, asked.template)  # fmt: skip


def question_group(
    seed: int | str, count: int = 4, split: str = "train", rare_share: float | None = None
) -> list[Example]:
    """Up to `count` different examples about one schema of the split, all drawn from `seed`."""
    rng = random.Random(seed)
    if rare_share is None:
        rare_share = RARE_SHARE if split == "train" else 0.0
    schema, context = draw_schema(rng, split, rare_share)
    speaker = Speaker(rng, schema, split == "train")
    examples: dict[str, Example] = {}
    for _ in range(MAX_TRIES):
        if len(examples) == count:
            break
        ask = rng.choices(list(KINDS), list(KINDS.values()))[0]
        asked = ask(speaker, rng.choice(list(schema.tables.values())))
        if asked is None:
            continue
        question, sql = _worded(rng, asked), asked.query.sql(schema)
        if question in examples or masked(context, question) in handwritten_forms():
            continue
        examples[question] = Example(f"{seed}-{len(examples)}", context, question, sql, _kind(asked, sql))
    return list(examples.values())


def questions(seed: int, split: str = "train", **options) -> Iterator[Example]:
    """Endless single examples, one to a schema, from one seed."""
    rng = random.Random(seed)
    while True:
        yield from question_group(rng.getrandbits(48), 1, split, **options)
