"""Several questions about one schema in one row, each blind to the others: fewer tokens per answer learned.

A group is `schema, question 1, answer 1, question 2, answer 2, ...`; each question sees the schema and itself, at
the positions it would have alone, so the model learns exactly what it will meet, and a schema is read once for all.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch

from helpers.text_to_sql.dataset import key, reserved_for_tests
from helpers.text_to_sql.generator import Example, generate_group
from helpers.text_to_sql.prompts import ASSISTANT, BARE, END, FENCE_CLOSE, FENCE_OPEN, USER, chatty_answer

JOINED_SHARE = 0.4  # joins are learned last: more of them than people ask
HARD_JOINED_SHARE, HARD_SHORTENED, HARD_DISTRACTORS = 0.5, 0.35, (40, 25, 15, 8, 6, 6)  # the last: weights of 0 to 5


@dataclass(frozen=True)
class Lesson:
    """What a batch teaches, and what counts in its loss (SQL counts 1)."""

    bare_share: float = 0.25  # of the answers: SQL without prose
    hard_share: float = 0.0  # of the schemas: more joins, other tables beside, columns called by one of their words
    question_weight: float = 0.1  # names in a question copy the schema's: a first lesson in copying, later mere noise
    prose_weight: float = 1.0  # which opening comes is chance: once known, it drowns what is left to learn of the SQL


LAST = Lesson()  # the mixture that a training of the default settings ends with


@dataclass
class Batch:
    """Tensors of shape (rows, length); `mask` is (rows, 1, length, length), True where attention is allowed."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor  # the next token, -100 where there is none
    weights: torch.Tensor  # of each label's loss
    answers: int  # how many answers it holds

    def to(self, device: str) -> Batch:
        """The same batch on another device."""
        return Batch(*(x.to(device) if torch.is_tensor(x) else x for x in vars(self).values()))


@dataclass
class _Group:
    ids: list[int]
    positions: list[int]
    parts: list[int]  # 0 the schema, k the k-th question with its answer
    labels: list[int]
    weights: list[float]
    answers: int


def make_group(examples: list[Example], tokenizer, rng: random.Random, lesson: Lesson, limit: int) -> _Group:
    """One packed group of at most `limit` tokens; questions that don't fit are left out."""

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    schema = encode(f"{USER}{examples[0].context}\n")
    group = _Group(
        list(schema), list(range(len(schema))), [0] * len(schema), [-100] * len(schema), [0.0] * len(schema), 0
    )
    for part, example in enumerate(examples, 1):
        bare = rng.random() < lesson.bare_share
        question = encode(f"{example.question}{BARE if bare else ASSISTANT}")
        before, sql, after = "", example.answer, ""
        if not bare:
            before, rest = chatty_answer(example, rng).split(FENCE_OPEN)
            sql, after = rest.split(FENCE_CLOSE)
            sql = FENCE_OPEN + sql + FENCE_CLOSE
        before, sql, after = encode(before), encode(sql), encode(after)
        ids = question + before + sql + after + encode(END)
        if len(group.ids) + len(ids) > limit:
            continue
        group.ids += ids
        group.positions += range(len(schema), len(schema) + len(ids))
        group.parts += [part] * len(ids)
        group.labels += [*ids[1:], -100]
        group.weights += [
            *[lesson.question_weight] * (len(question) - 1),
            *[lesson.prose_weight] * len(before),
            *[1.0] * len(sql),
            *[lesson.prose_weight] * len(after),
            1.0,
            0.0,
        ]
        group.answers += 1
    return group


def collate(rows: list[list[_Group]], length: int, pad: int) -> Batch:
    """Rows of groups as tensors, padded to `length`."""
    shape = (len(rows), length)
    ids, positions = np.full(shape, pad), np.zeros(shape, int)
    labels, weights = np.full(shape, -100), np.zeros(shape, np.float32)
    group_of, part_of = np.full(shape, -1), np.zeros(shape, int)
    for r, groups in enumerate(rows):
        start = 0
        for g, group in enumerate(groups):
            here = slice(start, start + len(group.ids))
            ids[r, here], positions[r, here], labels[r, here] = group.ids, group.positions, group.labels
            weights[r, here], part_of[r, here], group_of[r, here] = group.weights, group.parts, g
            start += len(group.ids)
    group, part = torch.from_numpy(group_of), torch.from_numpy(part_of)
    same_group = group[:, :, None] == group[:, None, :]
    visible = (part[:, None, :] == 0) | (part[:, :, None] == part[:, None, :])
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = (same_group & visible & causal)[:, None]
    answers = sum(group.answers for groups in rows for group in groups)
    as_tensor = torch.from_numpy
    return Batch(as_tensor(ids), as_tensor(positions), mask, as_tensor(labels), as_tensor(weights), answers)


def make_batch(
    tokenizer, seed: int, step: int, rows: int, length: int, lesson: Lesson = LAST, questions: int = 6
) -> Batch:
    """The batch of one step: it depends on `seed` and `step` alone, so a resumed run goes on where it stopped."""
    rng = random.Random(f"{seed}-{step}")
    filled: list[list[_Group]] = [[] for _ in range(rows)]
    room, misses = [length] * rows, 0
    while misses < 8:
        row = max(range(rows), key=room.__getitem__)
        harder = {"joined_share": JOINED_SHARE}
        if rng.random() < lesson.hard_share:
            harder = {
                "joined_share": HARD_JOINED_SHARE,
                "shortened": HARD_SHORTENED,
                "distractors": rng.choices(range(6), HARD_DISTRACTORS)[0],
            }
        group = generate_group(rng.getrandbits(48), questions, **harder)
        examples = [e for e in group if key(e) not in reserved_for_tests()]
        if not examples:
            continue
        group = make_group(examples, tokenizer, rng, lesson, room[row])
        if not group.answers:
            misses += 1
            continue
        filled[row].append(group)
        room[row] -= len(group.ids)
    return collate(filled, length, tokenizer.pad_token_id)
