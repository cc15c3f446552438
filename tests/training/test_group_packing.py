"""A packed row teaches exactly what a prompt alone would show."""

import random

import pytest
import torch

from helpers.text_to_sql.generator import SHORTENED, generate_group
from helpers.text_to_sql.prompts import ASSISTANT, BARE, END, USER
from helpers.training import group_packing
from helpers.training.group_packing import Lesson, collate, make_batch, make_group
from helpers.training.pretrain import new_model


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    shape = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2)
    return new_model(shape, tokenizer).double().eval()


def logits(model, batch):
    return model(batch.ids, attention_mask=batch.mask, position_ids=batch.positions).logits


@torch.no_grad()
def test_each_question_sees_its_schema_and_itself_alone(model, tokenizer):
    groups = [make_group(generate_group(s, 3), tokenizer, random.Random(s), Lesson(1.0), 2000) for s in (1, 2)]
    packed = logits(model, collate([groups], 1500, 0))[0]
    start = 0
    for seed, group in zip((1, 2), groups, strict=True):
        for part, example in enumerate(generate_group(seed, 3), 1):
            text = f"{USER}{example.context}\n{example.question}{BARE}{example.answer}{END}"
            alone = model(torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])).logits[0]
            where = [start + i for i, p in enumerate(group.parts) if p == part]
            torch.testing.assert_close(packed[where], alone[-len(where) :], atol=1e-9, rtol=1e-9)
        start += len(group.ids)


@torch.no_grad()
def test_a_mask_that_shows_other_questions_is_caught(model, tokenizer):
    group = make_group(generate_group(1, 3), tokenizer, random.Random(1), Lesson(1.0), 400)
    batch = collate([[group]], 500, 0)
    right = logits(model, batch)
    batch.mask = torch.ones(500, 500, dtype=torch.bool).tril()[None, None]  # the mistake: plain causal order
    where = [i for i, p in enumerate(group.parts) if p == 3]
    assert (logits(model, batch)[0, where] - right[0, where]).abs().max() > 1e-3


def test_labels_are_the_next_tokens_and_only_answers_weigh_in_full(tokenizer):
    group = make_group(generate_group(1, 2), tokenizer, random.Random(1), Lesson(0.0), 400)
    opened = tokenizer.convert_tokens_to_ids(ASSISTANT)
    first = group.ids.index(opened)
    assert group.labels[first] == group.ids[first + 1] and group.weights[first] == 1.0
    assert group.weights[first - 1] == 0.1 and set(group.weights[: group.parts.count(0)]) == {0.0}


def test_a_step_s_batch_depends_on_seed_and_step_alone(tokenizer):
    one, same, other = (make_batch(tokenizer, 0, step, 2, 256) for step in (3, 3, 4))
    assert torch.equal(one.ids, same.ids) and not torch.equal(one.ids, other.ids)
    assert one.answers == same.answers > 0


def test_a_lesson_says_what_prose_and_questions_weigh(tokenizer):
    examples = generate_group(1, 2)
    lesson = Lesson(bare_share=0.0, question_weight=0.05, prose_weight=0.2)
    group = make_group(examples, tokenizer, random.Random(1), lesson, 400)
    weighed = {0.05: "", 0.2: "", 1.0: ""}
    for label, weight in zip(group.labels, group.weights, strict=True):
        if label != -100:
            weighed[weight] += tokenizer.decode([label])
    assert weighed[1.0] == "".join(f"\n```sql\n{e.answer}\n```{END}" for e in examples)
    asked = [tokenizer(f"{e.question}{ASSISTANT}", add_special_tokens=False).input_ids[1:] for e in examples]
    assert weighed[0.05] == "".join(tokenizer.decode(token) for ids in asked for token in ids)
    assert "SELECT" not in weighed[0.2] and all(e.restated.split()[-1] in weighed[0.2] for e in examples)


def test_hard_lessons_are_harder_and_as_many_as_asked_for(tokenizer, monkeypatch):
    made = []

    def recorded(*arguments, **harder):
        made.append(harder.get("shortened", 0))
        return generate_group(*arguments, **harder)

    monkeypatch.setattr(group_packing, "generate_group", recorded)
    for share in (0.0, 0.5, 1.0):
        made.clear()
        for step in range(3):
            make_batch(tokenizer, 7, step, 4, 512, Lesson(1.0, share))
        hard = sum(shortened > SHORTENED for shortened in made) / len(made)
        assert len(made) > 20 and abs(hard - share) < (0.3 if share == 0.5 else 1e-9)
