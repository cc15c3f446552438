"""Examples for fine-tuning: a prompt is read, and the tokens of a completion are learned (notebook 03)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from helpers.errors import CourseError
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.prompts import prompt_for

IGNORED = -100  # a label that no loss counts

T = TypeVar("T")


def bare_sql(example: Example) -> str:
    """The SQL alone."""
    return example.answer


def explained_sql(example: Example) -> str:
    """The SQL, and what it answers as a comment below it."""
    return f"{example.answer}\n-- {example.question}"


ANSWERS: dict[str, Callable[[Example], str]] = {"sql": bare_sql, "explained": explained_sql}


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and completion, and the labels: the completion's own ids, `IGNORED` before them."""

    ids: list[int]
    labels: list[int]


def encode(example: Example, tokenizer, answer: Callable[[Example], str] = bare_sql) -> Encoded:
    """Prompt, completion and the end-of-sequence token, which is learned even if it also serves as padding."""
    prompt = tokenizer(prompt_for(tokenizer, example), add_special_tokens=False).input_ids
    completion = tokenizer(answer(example), add_special_tokens=False).input_ids
    return Encoded(*with_labels(prompt, completion, tokenizer.eos_token_id))


def by_schema(examples: Sequence[Example], items: Iterable[T]) -> list[list[T]]:
    """An item for each example, in groups of those that ask about the same tables, in the order of their first ones."""
    groups: dict[str, list[T]] = {}
    for example, item in zip(examples, items, strict=True):
        groups.setdefault(example.context, []).append(item)
    return list(groups.values())


def with_labels(
    prompt: list[int],
    completion: list[int],
    eos: int,
) -> tuple[list[int], list[int]]:
    """(token ids, labels) of a training example that ends with `eos`: a label is the
    token itself where it is learned, and `IGNORED` for the prompt."""
    learned = [*completion, eos]
    return prompt + learned, [IGNORED] * len(prompt) + learned


def examples_from(place: str, split: str) -> list[Example]:
    """Examples of a split of the course, of a .jsonl file or folder with the columns context, question, answer, or of a
    data set on the Hub."""
    path = Path(place)
    if path.is_dir():
        path = path / f"{split}.jsonl"
    if path.suffix != ".jsonl":
        return load_split(split, place)
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [
            Example(str(x.get("id", i)), x["context"], x["question"], x["answer"], x.get("kind", ""))
            for i, x in enumerate(lines)
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CourseError(
            f"{path} can't be read as examples ({reason}): it needs lines of JSON with context, question and answer."
        ) from None
