"""Generated questions: each can be run and judged, and holds all that its query names; nothing held out leaks."""

import re
from dataclasses import replace
from datetime import date
from itertools import islice

import pytest

from helpers.text_to_sql import questions as generated
from helpers.text_to_sql.filling import can_judge
from helpers.text_to_sql.handwritten import handwritten_forms, masked
from helpers.text_to_sql.questions import question_group, questions
from helpers.text_to_sql.sql import text_literals
from helpers.text_to_sql.values import pool
from helpers.text_to_sql.wording import MONTHS, NUMBER_WORDS

SPLITS = ("train", "validation", "test")
EACH = 250
KEYWORDS = set(
    """select distinct from as join on where and or not in is null like between group by having order desc
    limit count sum avg min max t1 t2 t3""".split()
)


@pytest.fixture(scope="module")
def examples():
    return {split: [e for seed in range(EACH) for e in question_group(f"test/{seed}", 1, split)] for split in SPLITS}


@pytest.fixture
def example():
    [made] = question_group("one", 1)
    return made


def spellings(day):
    """A date as the question may write it."""
    month = MONTHS[day.month - 1]
    return (str(day), f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}")


def ways_to_say(text):
    """How the question may say a text literal."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return spellings(date.fromisoformat(text))
    if re.fullmatch(r"(19|20)\d\d-\d\d", text):  # LIKE '2019-03%'
        return (f"{MONTHS[int(text[5:]) - 1]} {text[:4]}",)
    return (text,)


def unsaid(example):
    """Values of the query that its question doesn't hold."""
    texts = [t for t in text_literals(example.answer) if not any(w in example.question for w in ways_to_say(t))]
    plain = re.sub(r"'(?:[^']|'')*'|\bLIMIT 1$", "", example.answer)
    numbers = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?\b", plain)
    return texts + [n for n in numbers if not holds_number(example.question, n)]


def holds_number(question, number):
    digits, words = rf"(?<![\d.]){re.escape(number)}(?!\.?\d)", dict(enumerate(NUMBER_WORDS))
    word = rf"|\b{words[int(number)]}\b" if number.isdigit() and int(number) in words else ""
    return re.search(digits + word, question, re.IGNORECASE) is not None


def unknown_names(example):
    """Names in the query that no table has."""
    plain = re.sub(r"'(?:[^']|'')*'", "", example.answer)
    return (
        set(re.findall(r"[A-Za-z_]\w*", plain))
        - set(re.findall(r"\w+", example.context))
        - {word for word in re.findall(r"[A-Za-z_]\w*", plain) if word.lower() in KEYWORDS}
    )


def unlinked(example):
    """Aliases that no ON mentions."""
    links = re.findall(r" ON (T\d)\.\w+ = (T\d)\.", example.answer)
    return set(re.findall(r" AS (T\d)", example.answer)) - {alias for link in links for alias in link}


SLIP = re.compile(r"\b([a-z]+) \1\b|\bthat and\b|\b1 (?:rooms|bedrooms|goals|seats|people)\b|[{}]|  | [,.?]")


def slips(question):
    """What a reader would see at once: doubled words, slots left open, one thing in the plural."""
    return [found[0] for found in SLIP.finditer(question)]


@pytest.mark.parametrize("split", SPLITS)
def test_every_example_runs_and_can_be_judged(examples, split):
    assert all(can_judge(e.context, e.answer) for e in examples[split])


def test_a_query_that_does_not_run_cannot_be_judged(example):
    assert not can_judge(example.context, example.answer.replace("SELECT ", "SELECT no_such_column, "))


@pytest.mark.parametrize("split", SPLITS)
def test_the_question_holds_every_value_of_its_query(examples, split):
    assert not [(e.question, e.answer, unsaid(e)) for e in examples[split] if unsaid(e)]


def test_a_value_that_nobody_said_is_caught(example):
    assert unsaid(replace(example, answer="SELECT a FROM t WHERE x = 'Zyx'")) == ["Zyx"]
    assert unsaid(replace(example, question="which are from 2019?", answer="SELECT a FROM t WHERE b > 20")) == ["20"]
    assert not unsaid(replace(example, question="the three oldest", answer="SELECT a FROM t ORDER BY b LIMIT 3"))
    day = replace(example, question="made on 9 March 2024", answer="SELECT a FROM t WHERE b = '2024-03-09'")
    assert not unsaid(day)
    assert unsaid(replace(day, question="made on 3 September 2024")) == ["2024-03-09"]


@pytest.mark.parametrize("split", SPLITS)
def test_queries_use_the_names_of_their_tables(examples, split):
    assert not [(e.answer, unknown_names(e)) for e in examples[split] if unknown_names(e)]
    e = examples[split][0]
    assert unknown_names(replace(e, answer=e.answer.replace("FROM ", "FROM other_"))), "a planted one is caught"


@pytest.mark.parametrize("split", SPLITS)
def test_joined_tables_are_connected(examples, split):
    assert not [e.answer for e in examples[split] if unlinked(e)]


def test_a_table_that_hangs_in_the_air_is_caught(example):
    loose = "SELECT T1.a FROM t AS T1 JOIN u AS T2 ON T1.b = T2.b JOIN v AS T3 ON T1.c = T2.c"
    assert unlinked(replace(example, answer=loose)) == {"T3"}


@pytest.mark.parametrize("split", SPLITS)
def test_no_question_has_a_slip(examples, split):
    assert not [(e.question, slips(e.question)) for e in examples[split] if slips(e.question)]
    assert all(slips(q) for q in ("which films that that cost 5", "films with 1 rooms", "the {them}", "in in Oslo"))


def test_nothing_held_out_is_in_training(examples):
    held_out = {value for kind in ("person", "company", "email", "phone") for value in pool(kind, False)}

    def leaked(made):
        return {text for e in made for text in text_literals(e.answer)} & held_out

    assert not leaked(examples["train"])
    assert leaked(examples["test"]), "the check sees them where they are allowed"


def test_no_context_of_the_test_is_in_training(examples):
    contexts = {split: {e.context for e in examples[split]} for split in SPLITS}
    assert not contexts["train"] & (contexts["test"] | contexts["validation"])


def test_all_kinds_are_asked(examples):
    kinds = {e.kind for made in examples.values() for e in made}
    assert {"which", "count", "join", "three tables", "null", "date", "like", "in", "not in", "subquery"} <= kinds


def test_a_seed_draws_the_same_questions():
    assert question_group("7/3", 4) == question_group("7/3", 4)
    assert [e.question for e in islice(questions(5), 8)] == [e.question for e in islice(questions(5), 8)]
    assert question_group("7/3", 4) != question_group("7/4", 4)


def test_hard_questions_are_other_ones_with_more_joins_lists_and_patterns():
    plain, hard = ([e for i in range(150) for e in question_group(f"hard/{i}", 4, hard=h)] for h in (False, True))
    for sign, at_least in ((" JOIN ", 1.2), (" IN (", 1.3), (" AND ", 1.2), (" LIKE ", 1.0)):
        few, many = (sum(sign in e.answer for e in made) / len(made) for made in (plain, hard))
        assert many > at_least * few, sign
    assert not any(unsaid(e) for e in hard) and all(can_judge(e.context, e.answer) for e in hard[::10])


def test_a_group_shares_its_tables_and_asks_each_question_once():
    made = question_group("group", 6)
    assert len({e.context for e in made}) == 1 and len({e.question for e in made}) == len(made) == 6


def test_both_handwritten_files_count():
    assert len(handwritten_forms()) >= 110


def test_a_handwritten_question_is_not_generated(monkeypatch, example):
    forbidden = masked(example.context, example.question)
    monkeypatch.setattr(generated, "handwritten_forms", lambda: frozenset({forbidden}))
    [other] = question_group("one", 1)
    assert masked(other.context, other.question) != forbidden


@pytest.mark.slow
def test_no_handwritten_question_is_among_20000():
    made = (e for seed in range(5000) for e in question_group(f"many/{seed}", 4))
    assert not any(masked(e.context, e.question) in handwritten_forms() for e in made)
