"""The committed splits: their sizes, nothing shared, nothing leaked, the same when made again."""

import json
import sqlite3
from contextlib import closing

import pytest

from helpers.errors import CourseError
from helpers.text_to_sql import dataset
from helpers.text_to_sql.dataset import key, load_split, make_splits, reserved_for_tests
from helpers.text_to_sql.evaluate import is_correct
from helpers.text_to_sql.filling import can_judge
from helpers.text_to_sql.generator import Example
from helpers.text_to_sql.names import DATA, plural, pool
from helpers.text_to_sql.tokenizer import build_tokenizer, training_mix
from helpers.training import group_packing


@pytest.fixture(scope="module")
def splits():
    return {split: load_split(split) for split in ("train", "validation", "test", "handwritten")}


def test_sizes_are_those_of_the_published_notebook(splits):
    assert {s: len(rows) for s, rows in splits.items()} == dict(train=2100, validation=450, test=450, handwritten=60)


def test_no_question_about_the_same_tables_stands_twice(splits):
    keys = [key(e) for rows in splits.values() for e in rows]
    assert len(set(keys)) == len(keys)


def test_every_committed_reference_is_right_on_its_own_tables(splits):
    assert all(can_judge(e.context, e.answer) for e in splits["train"][:300])
    for split in ("validation", "test", "handwritten"):
        assert all(is_correct(e.answer, e.context, e.answer) for e in splits[split])


def test_no_noun_in_either_number_is_a_word_of_sql_s_own():
    with closing(sqlite3.connect(":memory:")) as connection:
        for word in {w for noun in pool("nouns") for w in (noun, plural(noun))}:
            connection.execute(f"CREATE TABLE {word} ({word} TEXT)")


def test_training_sees_no_held_out_word_and_the_others_see_some(splits):
    assert not any(e.unseen for e in splits["train"])
    assert 0.2 < sum(e.unseen for e in splits["test"]) / 450 < 0.95


def test_the_committed_files_are_what_the_generator_makes(splits):
    made = make_splits()
    for split, rows in made.items():
        assert [key(e) for e in rows] == [key(e) for e in splits[split]]
        assert [e.answer for e in rows] == [e.answer for e in splits[split]]


def test_pretraining_leaves_out_what_is_reserved(monkeypatch):
    examples = training_mix(60)
    tokenizer = build_tokenizer(examples, [e.answer for e in examples], vocabulary=600)
    used = []
    real = group_packing.make_group
    monkeypatch.setattr(
        group_packing, "make_group", lambda examples, *rest: used.extend(examples) or real(examples, *rest)
    )
    group_packing.make_batch(tokenizer, 0, 0, 2, 512, group_packing.Lesson(1.0))
    leaked = frozenset(key(e) for e in used[::2])
    used.clear()
    monkeypatch.setattr(group_packing, "reserved_for_tests", lambda: leaked)
    assert group_packing.make_batch(tokenizer, 0, 0, 2, 512, group_packing.Lesson(1.0)).answers
    assert used and not leaked & {key(e) for e in used}


def test_a_sample_of_the_pretraining_stream_shares_nothing_with_the_tests(monkeypatch):
    reserved = reserved_for_tests()
    assert len(reserved) == 450 + 450 + 60
    monkeypatch.setattr(group_packing, "reserved_for_tests", frozenset)  # without the filter: what it would have caught
    examples = training_mix(60)
    tokenizer = build_tokenizer(examples, [e.answer for e in examples], vocabulary=600)
    used, real = [], group_packing.make_group
    monkeypatch.setattr(
        group_packing, "make_group", lambda examples, *rest: used.extend(examples) or real(examples, *rest)
    )
    for step in (0, 400, 1799):
        group_packing.make_batch(tokenizer, 0, step, 4, 512)
    assert len(used) > 100 and not reserved & {key(e) for e in used}


def test_the_hub_s_data_set_is_cut_into_the_same_sizes(tmp_path):
    rows = [
        {
            "context": f"CREATE TABLE t{i} (a INTEGER)",
            "question": f"How many {i}?",
            "answer": f"SELECT COUNT(*) FROM t{i}",
        }
        for i in range(3100)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = {s: load_split(s, dataset=str(tmp_path)) for s in dataset.SIZES}
    assert {s: len(r) for s, r in splits.items()} == dataset.SIZES
    assert len({key(e) for r in splits.values() for e in r}) == 3000
    assert splits["test"][0].kind == "count"
    assert not any(e.question == "Broken?" for r in splits.values() for e in r)


def test_hostile_rows_of_the_hub_s_data_set_are_left_out(tmp_path):
    planted = tmp_path / "planted.db"
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n"
    tables = "CREATE TABLE t (a INTEGER)"
    hostile = [
        (f"ATTACH DATABASE '{planted}' AS planted; CREATE TABLE planted.t (a INTEGER)", "SELECT a FROM t"),
        (tables, endless),
        (tables, "DROP TABLE t"),
        (tables, "SELECT a FROM t WHERE a > 5 AND a < 3"),  # agrees with everything empty
        (tables, None),
        (None, "SELECT 1"),
    ]
    honest = [(f"CREATE TABLE t{i} (a INTEGER)", f"SELECT COUNT(*) FROM t{i}") for i in range(3000)]
    rows = [{"context": c, "question": f"Which {i}?", "answer": a} for i, (c, a) in enumerate(hostile + honest)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    examples = [e for split in dataset.SIZES for e in load_split(split, dataset=str(tmp_path))]
    assert {(e.context, e.answer) for e in examples} == set(honest)
    assert not planted.exists()


@pytest.mark.parametrize(
    "columns, says",
    [
        ({"context": "", "question": ""}, "no column answer"),
        ({"context": "", "question": "", "answer": ""}, "has 2 rows"),
    ],
)
def test_another_data_set_is_refused(tmp_path, columns, says):
    (tmp_path / "train.jsonl").write_text("\n".join([json.dumps(columns)] * 2))
    with pytest.raises(CourseError, match=says):
        load_split(dataset=str(tmp_path))


def test_unknown_names_and_damaged_files_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(CourseError, match="there are train, validation, test, handwritten"):
        load_split("tests")
    with pytest.raises(CourseError, match="check its name and the network"):
        load_split(dataset=str(tmp_path / "nowhere"))
    (tmp_path / "test.jsonl").write_text((DATA / "test.jsonl").read_text()[:1000])
    monkeypatch.setattr(dataset, "DATA", tmp_path)
    with pytest.raises(CourseError, match="git checkout"):
        load_split("test")


def test_lengths_and_kinds(splits):
    examples = training_mix(60)
    tokenizer = build_tokenizer(examples, [e.answer for e in examples], vocabulary=600)
    prompts, answers = dataset.token_lengths(splits["test"][:5], tokenizer)
    assert len(prompts) == len(answers) == 5 and min(prompts) > 10
    assert sum(dataset.kinds(splits["test"]).values()) == 450
    assert dataset.kind_of("SELECT T1.a FROM t AS T1 JOIN u AS T2 ON T1.a = T2.a") == "join"


def test_an_example_keeps_its_words(splits):
    assert isinstance(splits["test"][0], Example) and isinstance(splits["test"][0].words, tuple)
