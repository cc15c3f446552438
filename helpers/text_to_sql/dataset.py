"""The splits: 2,100 / 450 / 450 committed examples, the handwritten ones, and sql-create-context from the Hub.

`python -m helpers.text_to_sql.dataset` makes the committed files anew, the same to the byte.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from helpers.errors import CourseError
from helpers.text_to_sql.domains import DATA
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.filling import can_judge
from helpers.text_to_sql.prompts import prompt_for
from helpers.text_to_sql.questions import question_group

SIZES = {"train": 2100, "validation": 450, "test": 450}  # of AWS's Medusa-1 notebook
GROUPS = {"train": 3, "validation": 1, "test": 1}  # questions about one schema
HUB_DATASET = "b-mc2/sql-create-context"


def key(example: Example) -> tuple[str, str]:
    """What makes two examples the same: their tables and the question."""
    return example.context, example.question


def make_splits() -> dict[str, list[Example]]:
    """All three splits, each of its own domains, no (tables, question) twice: questions about one schema stand together
    in training, and in the others each has a schema of its own."""
    return {split: _distinct_examples(f"{split} split", split, size, SIZES[split]) for split, size in GROUPS.items()}


def _distinct_examples(seed: str, split: str, group_size: int, count: int) -> list[Example]:
    """`count` different examples that can be judged."""
    examples: dict[tuple[str, str], Example] = {}
    for group in itertools.count():
        for example in question_group(f"{seed} {group}", group_size, split):
            if len(examples) < count and can_judge(example.context, example.answer):
                examples.setdefault(key(example), example)
        if len(examples) == count:
            return list(examples.values())


def write_splits(folder: Path = DATA) -> None:
    """Write train.jsonl, validation.jsonl and test.jsonl, a line an example."""
    for split, examples in make_splits().items():
        lines = (asdict(e) | {"id": f"{split}-{n:04}"} for n, e in enumerate(examples, 1))
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def load_split(split: str = "test", dataset: str = "course", limit: int | None = None, seed: int = 0) -> list[Example]:
    """The first `limit` examples (None: all) of "train", "validation", "test" or, of the course's own, "handwritten".

    `dataset` is "course" for the committed files, else a name on the Hub or a folder with the columns context, question
    and answer ("b-mc2/sql-create-context"), which is shuffled by `seed` and cut into splits of the same sizes.
    """
    known = [*SIZES, "handwritten"] if dataset == "course" else list(SIZES)
    if split not in known:
        raise CourseError(f"There is no split {split!r} of {dataset}; there are {', '.join(known)}.")
    rows = _committed(split) if dataset == "course" else _from_hub(dataset, split, seed)
    return rows[:limit]


def _committed(split: str) -> list[Example]:
    path = DATA / f"{split}.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [Example(**line) for line in lines]
    except (OSError, ValueError, TypeError):
        raise CourseError(
            f"{path.name} is missing or damaged: `git checkout data/text_to_sql` brings it back."
        ) from None


def _from_hub(dataset: str, split: str, seed: int) -> list[Example]:
    from datasets import load_dataset

    try:
        rows = load_dataset(dataset, split="train")
    except Exception as error:
        raise CourseError(
            f"Can't load the data set {dataset} ({type(error).__name__}): check its name and the network, or leave "
            'HF_HUB_OFFLINE unset; dataset="course" needs neither.'
        ) from None
    missing = {"context", "question", "answer"} - set(rows.column_names)
    if missing:
        raise CourseError(f"The data set {dataset} has no column {', '.join(sorted(missing))}: it is another task.")
    if len(rows) < sum(SIZES.values()):
        raise CourseError(f"The data set {dataset} has {len(rows)} rows; the splits need {sum(SIZES.values())}.")
    first: dict[tuple[str, str], Example] = {}  # what stands twice would be in two splits
    for i in random.Random(seed).sample(range(len(rows)), len(rows)):
        context, question, answer = (rows[i][column] or "" for column in ("context", "question", "answer"))
        example = Example(f"{dataset}-{i}", context, question, answer, kind_of(answer))
        # The Hub's rows are not all such as SQLite runs, and a stranger wrote them.
        if key(example) not in first and can_judge(context, answer):
            first[key(example)] = example
        if len(first) == sum(SIZES.values()):
            break
    else:
        raise CourseError(f"The data set {dataset} has {len(first)} different rows that can be judged, not 3,000.")
    start = sum(size for name, size in SIZES.items() if list(SIZES).index(name) < list(SIZES).index(split))
    return list(first.values())[start : start + SIZES[split]]


def kind_of(sql: str) -> str:
    """A rough kind of a query that comes without one: its most telling clause."""
    upper = f" {sql.upper()} "
    for sign, kind in (
        (" JOIN ", "join"),
        (" GROUP BY ", "group"),
        (" ORDER BY ", "sorted"),
        ("COUNT(", "count"),
        (" DISTINCT ", "distinct"),
        ("AVG(", "AVG"),
        ("SUM(", "SUM"),
        ("MAX(", "MAX"),
        ("MIN(", "MIN"),
    ):
        if sign in upper:
            return kind
    return "select"


def training_examples(more: int = 0, seed: int = 0) -> list[Example]:
    """The training split and `more` generated examples, seven to a schema, with more of what is hard."""
    used, examples = set(), load_split("train")
    used.update(key(e) for e in examples)
    for group in itertools.count():
        if more <= 0:
            return examples
        fresh = [e for e in question_group(f"more {seed} {group}", 7, hard=True) if key(e) not in used][:more]
        used.update(key(e) for e in fresh)
        examples += fresh
        more -= len(fresh)


def token_lengths(examples: Iterable[Example], tokenizer) -> tuple[list[int], list[int]]:
    """(tokens of each prompt, tokens of each reference query)."""

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    pairs = [(count(prompt_for(tokenizer, e)), count(e.answer)) for e in examples]
    return [p for p, _ in pairs], [a for _, a in pairs]


def kinds(examples: Sequence[Example]) -> dict[str, int]:
    """How many examples there are of each kind of query, the most frequent first."""
    return dict(Counter(e.kind for e in examples).most_common())


if __name__ == "__main__":
    write_splits()
