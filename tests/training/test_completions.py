"""Training examples: what is learned of them, and where they come from."""

import json

import pytest

from helpers.errors import CourseError
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import extract_sql, prompt_for
from helpers.training.completions import IGNORED, Encoded, encode, examples_from, explained_sql, with_labels
from helpers.training.packing import Tree, collate

EXAMPLES = load_split("train", limit=12)


def test_the_completion_is_learned_with_its_end_and_the_prompt_is_not(tokenizer):
    encoded = encode(EXAMPLES[0], tokenizer)
    learned = [t for t, label in zip(encoded.ids, encoded.labels) if label != IGNORED]
    assert learned[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(learned[:-1]) == EXAMPLES[0].answer
    read = [t for t, label in zip(encoded.ids, encoded.labels) if label == IGNORED]
    assert tokenizer.decode(read) == prompt_for(tokenizer, EXAMPLES[0])


def test_the_end_is_learned_although_it_is_the_padding():
    ids, labels = with_labels([7, 2], [2, 9], 2)
    assert ids == [7, 2, 2, 9, 2] and labels == [IGNORED, IGNORED, 2, 9, 2]
    batch = collate([[Tree((Encoded(ids, labels),))], [Tree((Encoded([5, 2], [IGNORED, 2]),))]], pad=2)
    assert (batch["labels"] != IGNORED).sum().item() == 4  # three of the first, one of the second, none of the padding


def test_an_explained_answer_still_runs():
    assert extract_sql(explained_sql(EXAMPLES[0])).startswith(EXAMPLES[0].answer)


def test_examples_come_from_files_too(tmp_path):
    rows = [{"context": "CREATE TABLE t (a INTEGER)", "question": "All a?", "answer": "SELECT a FROM t"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for place in (tmp_path, tmp_path / "train.jsonl"):
        assert [e.answer for e in examples_from(str(place), "train")] == ["SELECT a FROM t"]
    (tmp_path / "train.jsonl").write_text("{}\n")
    with pytest.raises(CourseError, match="context, question and answer"):
        examples_from(str(tmp_path), "train")
