"""The committed splits: their sizes, nothing shared, nothing leaked, the same when made again."""

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import groupby

import pytest

from helpers.errors import CourseError
from helpers.text_to_sql import dataset, domains, variants, words
from helpers.text_to_sql.dataset import key, load_split, training_examples
from helpers.text_to_sql.domains import DATA
from helpers.text_to_sql.evaluate import is_correct
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.filling import can_judge
from helpers.text_to_sql.handwritten import handwritten_forms, masked
from tests.tiny_tokenizer import tiny_tokenizer

SPLITS = ("train", "validation", "test", "handwritten")
TABLE = re.compile(r"CREATE TABLE .*?\((.*)\)")
COLUMN = re.compile(r'(?:^|, )("[^"]*"|\w+)')


@pytest.fixture(scope="module")
def splits():
    return {split: load_split(split) for split in SPLITS}


def tables(examples):
    """The CREATE TABLE statements, and the set of column names of each, whatever their case and underscores."""
    texts = {text.strip() for e in examples for text in e.context.split(";") if text.strip()}
    columns = [COLUMN.findall(TABLE.fullmatch(text).group(1).lower().replace("_", "")) for text in texts]
    return texts, set(map(frozenset, columns))


def shared_tables(one, other):
    """The tables of both, in the same words or with the same columns."""
    return [a & b for a, b in zip(tables(one), tables(other), strict=True)]


def twice(examples):
    """The keys that more than one example has."""
    return {k for k, count in Counter(map(key, examples)).items() if count > 1}


def test_sizes_are_those_of_the_published_notebook(splits):
    assert {s: len(rows) for s, rows in splits.items()} == dict(train=2100, validation=450, test=450, handwritten=120)
    assert len({e.id for rows in splits.values() for e in rows}) == 3120


def test_no_question_about_the_same_tables_stands_twice(splits):
    everything = [e for rows in splits.values() for e in rows]
    assert not twice(everything)
    planted = replace(splits["test"][7], id="another", answer="SELECT 1")
    assert twice([*everything, planted]) == {key(planted)}


@pytest.mark.parametrize("held_out", SPLITS[1:])
def test_no_table_of_the_others_is_in_training(splits, held_out):
    assert shared_tables(splits["train"], splits[held_out]) == [set(), set()]


def test_the_splits_are_of_different_domains():
    assert shared_tables(load_split("validation"), load_split("test")) == [set(), set()]
    by_split = {split: {schema.domain for schema in domains.schemas(split)} for split in SPLITS[:3]}
    assert {split: len(names) for split, names in by_split.items()} == dict(train=35, validation=7, test=8)
    assert len(set.union(*by_split.values())) == 50


def test_a_table_that_leaked_is_seen_even_in_another_spelling(splits):
    leaked = splits["test"][0]
    respelled = replace(leaked, context=leaked.context.replace("_", "").upper())
    same_text, same_columns = shared_tables([*splits["train"], leaked], splits["test"])
    assert same_text and same_columns
    same_text, same_columns = shared_tables([*splits["train"], respelled], splits["test"])
    assert not same_text and same_columns


def test_a_split_by_questions_would_be_seen(splits):
    """The planted mistake: other questions, from training's domains."""
    assert all(shared_tables(splits["train"], dataset._distinct_examples("test split", "train", 1, 100)))


def test_no_handwritten_question_is_generated_under_other_names(splits):
    def generated(examples):
        return {e.id for e in examples if masked(e.context, e.question) in handwritten_forms()}

    assert not generated(splits["train"] + splits["validation"] + splits["test"])
    written = next(e for e in splits["handwritten"] if "tallest lighthouses" in e.question)
    fields = {"context": written.context, "question": written.question}
    renamed = {field: text.replace("lighthouses", "masts").replace("name", "mast") for field, text in fields.items()}
    assert generated([replace(written, **renamed)]) == {written.id}


def test_references_are_right_on_their_own_tables(splits):
    """Every third: that all of them can be judged follows from the files' being what the generator makes."""
    examples = (splits["validation"] + splits["test"])[::3]
    assert all(is_correct(e.answer, e.context, e.answer) for e in examples)
    assert not can_judge(examples[0].context, examples[0].answer + " LIMIT 0")


def test_questions_about_one_schema_stand_together_in_training_alone(splits):
    def schemas(split):
        contexts = [e.context for e in splits[split]]
        return len(set(contexts)), len(list(groupby(contexts)))

    number, runs = schemas("train")
    assert 600 <= number <= 800 and runs < 1.1 * number
    assert schemas("test")[0] > 400 and schemas("validation")[0] > 400


def test_the_nouns_that_are_words_of_sql_s_own_are_known():
    nouns, refused = words.real_words("nouns", training=True) + words.real_words("nouns", training=False), set()
    with closing(sqlite3.connect(":memory:")) as connection:
        for word in {w for noun in nouns for w in (noun, words.plural(noun))}:
            try:
                connection.execute(f"CREATE TABLE {word} ({word} TEXT)")
            except sqlite3.OperationalError:
                refused.add(word)
    assert refused == {"references", "values"} <= variants.KEYWORDS


def test_training_shows_no_held_out_word():
    assert not set(words.real_words("nouns", training=True)) & set(words.real_words("nouns", training=False))
    assert words.held_out("zebras") == words.held_out("Zebra")


def test_the_committed_files_are_what_the_generator_makes_to_the_byte(tmp_path):
    dataset.write_splits(tmp_path)
    for split in dataset.SIZES:
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (DATA / f"{split}.jsonl").read_bytes(), split


def test_more_training_examples_are_new_ones(splits):
    examples = training_examples(700, seed=1)
    assert examples[:2100] == splits["train"] and len(examples) == 2800 and not twice(examples)
    for split in SPLITS[1:]:
        assert shared_tables(examples, splits[split]) == [set(), set()]
    again, other = training_examples(70, seed=1), training_examples(70, seed=2)
    assert again == examples[:2170] and not {key(e) for e in other[2100:]} & {key(e) for e in examples[2100:]}
    assert training_examples() == splits["train"]


def test_an_example_that_was_drawn_before_is_not_drawn_again(splits, monkeypatch):
    groups = iter([splits["train"][:3], [Example("new", "CREATE TABLE t (a TEXT)", "a?", "SELECT a FROM t")]])
    monkeypatch.setattr(dataset, "question_group", lambda seed, count, **more: next(groups))
    assert [e.id for e in training_examples(1)[2100:]] == ["new"]


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
    monkeypatch.setattr(dataset, "DATA", tmp_path)
    for damaged in ((DATA / "test.jsonl").read_text()[:1000], '{"id": "test-0001"}\n', "[]\n"):
        (tmp_path / "test.jsonl").write_text(damaged)
        with pytest.raises(CourseError, match=r"^test\.jsonl is missing or damaged: `git checkout data/text_to_sql`"):
            load_split("test")
    with pytest.raises(CourseError, match=r"^train\.jsonl is missing or damaged"):
        load_split("train")


def test_lengths_and_kinds(splits):
    prompts, answers = dataset.token_lengths(splits["test"][:5], tokenizer := tiny_tokenizer())
    assert answers == [len(tokenizer(e.answer).input_ids) for e in splits["test"][:5]] and min(prompts) > max(answers)
    assert sum(dataset.kinds(splits["test"]).values()) == 450
    assert dataset.kind_of("SELECT T1.a FROM t AS T1 JOIN u AS T2 ON T1.a = T2.a") == "join"
