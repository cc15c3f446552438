"""Training examples: what is learned, how they share rows, and that sharing a row changes nothing."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import CourseError
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import ASSISTANT, extract_sql
from helpers.training.completions import IGNORED, Encoded, encode, examples_from, explained_sql, with_labels
from helpers.training.packing import collate, pack
from tests.tiny_models import tiny

EXAMPLES = load_split("train", limit=12)


def test_the_completion_is_learned_with_its_end_and_the_prompt_is_not(tokenizer):
    encoded = encode(EXAMPLES[0], tokenizer)
    learned = [t for t, label in zip(encoded.ids, encoded.labels) if label != IGNORED]
    assert learned[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(learned[:-1]) == EXAMPLES[0].answer
    read = [t for t, label in zip(encoded.ids, encoded.labels) if label == IGNORED]
    assert tokenizer.decode(read).endswith(ASSISTANT)


def test_the_end_is_learned_although_it_is_the_padding():
    ids, labels = with_labels([7, 2], [2, 9], 2)
    assert ids == [7, 2, 2, 9, 2] and labels == [IGNORED, IGNORED, 2, 9, 2]
    batch = collate([[Encoded(ids, labels)], [Encoded([5, 2], [IGNORED, 2])]], pad=2)
    assert (batch["labels"] != IGNORED).sum().item() == 4  # three of the first, one of the second, none of the padding


def test_an_explained_answer_still_runs():
    assert extract_sql(explained_sql(EXAMPLES[0])).startswith(EXAMPLES[0].answer)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_packing_keeps_every_example_once_and_no_row_is_too_long(lengths):
    examples = [Encoded(list(range(n)), [IGNORED] * n) for n in lengths]
    rows = pack(examples, 30)
    assert sorted(len(e.ids) for row in rows for e in row) == sorted(lengths)
    assert all(sum(len(e.ids) for e in row) <= 30 for row in rows)


def test_an_example_that_is_too_long_is_refused():
    with pytest.raises(CourseError, match="1 examples are longer than 4 tokens"):
        pack([Encoded([1] * 5, [1] * 5)], 4)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_examples_in_one_row_don_t_see_each_other(kind):
    model = tiny(kind)
    some = [Encoded([5, 9, 2, 30], [IGNORED, 9, 2, 30]), Encoded([7, 7, 41], [IGNORED, 7, 41])]
    batch = collate([some], pad=0)
    together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
    apart = [model(torch.tensor([e.ids]), use_cache=False).logits[0] for e in some]
    torch.testing.assert_close(together, torch.cat(apart))
    positions = torch.arange(7)[None]  # the planted mistake: one text, as if they belonged together
    wrong = model(input_ids=batch["input_ids"], position_ids=positions, use_cache=False).logits[0]
    assert not torch.allclose(wrong[4:], torch.cat(apart)[4:])


def test_no_label_crosses_from_one_example_to_the_next():
    row = [Encoded([5, 6], [5, 6]), Encoded([7, 8], [7, 8])]
    assert collate([row], pad=0)["labels"].tolist() == [[IGNORED, 6, IGNORED, 8]]


def test_examples_come_from_files_too(tmp_path):
    rows = [{"context": "CREATE TABLE t (a INTEGER)", "question": "All a?", "answer": "SELECT a FROM t"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for place in (tmp_path, tmp_path / "train.jsonl"):
        assert [e.answer for e in examples_from(str(place), "train")] == ["SELECT a FROM t"]
    (tmp_path / "train.jsonl").write_text("{}\n")
    with pytest.raises(CourseError, match="context, question and answer"):
        examples_from(str(tmp_path), "train")
