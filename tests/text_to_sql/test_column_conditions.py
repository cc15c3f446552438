"""Conditions on one column: what the words say and what the query says is the same."""

import random
import re

import pytest

from helpers.text_to_sql.asked_conditions import Condition, as_list, is_plain
from helpers.text_to_sql.column_conditions import draw_condition
from helpers.text_to_sql.domains import Column, Schema, Table
from helpers.text_to_sql.number_conditions import OF_SIZE
from helpers.text_to_sql.sql import Ref
from helpers.text_to_sql.wording import Speaker

TITLE = Column("title", values=("Night Train", "Blue Hill"), nouns=("title",), label=True)
GENRE = Column("genre", values=("comedy", "drama", "horror", "war"), nouns=("genre",), few=True, phrases={"each": ()})
STUDIO = Column("studio", values=("Northern Light", "Old Mill"), nouns=("studio",), maybe=True)
PRICE = Column("price", "REAL", (1, 90), nouns=("price",), phrases={"more": ("with a price over {v}",), "most": ()})
ROOMS = Column("rooms", "INTEGER", (1, 3), nouns=("rooms",), phrases={"is": ("with {v} rooms",), "total": ()})
YEAR = Column("year", "INTEGER", (1931, 2020), nouns=("year",))
DAY = Column("day", "DATE", ("2001-01-01", "2020-12-31"), nouns=("day",))
FILMS = Table("films", "film", ("films",), (TITLE, GENRE, STUDIO, PRICE, ROOMS, YEAR, DAY))


@pytest.fixture(scope="module")
def drawn():
    s = Speaker(random.Random(1), Schema("films", {"films": FILMS}), True)
    return {c.name: [d for _ in range(400) if (d := draw_condition(s, FILMS, c))] for c in FILMS.columns}


def forms(conditions):
    return {re.sub(r"'[^']*'|-?\b\d[\d.]*", "_", c.ref.form) for c in conditions}


def test_text_is_equal_or_not_or_one_of_some(drawn):
    assert {"{c} = _", "{c} != _", "{c} = _ OR {c} = _", "{c} IN (_, _, _)", "{c} NOT IN (_, _, _)"} <= forms(
        drawn["genre"]
    )
    assert not any("LIKE" in form for form in forms(drawn["genre"])), "nobody asks for a part of a category"
    assert forms(drawn["title"]) == {"{c} LIKE _"}


def test_what_may_be_missing_is_never_unequal(drawn):
    kinds = forms(drawn["studio"])
    assert {"{c} IS NULL", "{c} IS NOT NULL", "{c} = _"} <= kinds
    assert not any("!=" in form or "NOT IN" in form for form in kinds)


def test_parts_of_names_stand_in_the_phrase(drawn):
    for condition in drawn["title"]:
        [part] = re.findall(r"'%?([^%]+)%?'", condition.ref.form)
        assert part in condition.phrase
        before, after = re.search(r"'(%?)[^%]+(%?)'", condition.ref.form).groups()
        words = {("", "%"): r"start|begin", ("%", ""): r"\bend", ("%", "%"): r"contain|\bin\b|includ"}[before, after]
        assert re.search(words, condition.phrase), condition
        assert len(part) > 1 or part.isupper()


def test_numbers_are_compared_as_the_phrase_says(drawn):
    words = {
        ">=": r"at least|or more|or higher",
        "<=": r"at most|or less|or lower|no more than",
        "BETWEEN": r"between|from",
    }
    seen = set()
    for condition in drawn["price"]:
        operator = condition.ref.form.split()[1]
        seen.add(operator)
        if operator in words:
            assert re.search(words[operator], condition.phrase), condition
        else:
            assert not re.search(r"at least|at most|or more|or less", condition.phrase), condition
    assert {">", "<", ">=", "<=", "BETWEEN"} <= seen
    assert any("above" in c.phrase or "average" in c.phrase for c in drawn["price"] if c.kind == "subquery")


def test_one_thing_is_never_in_the_plural(drawn):
    assert drawn["rooms"] and not any(re.search(r"\b1 rooms", c.phrase) for c in drawn["rooms"])


def test_years_are_spoken_of_as_times(drawn):
    assert not any(re.search(r"more than|over \d|higher|above|under", c.phrase) for c in drawn["year"])
    assert any("after" in c.phrase for c in drawn["year"])


def test_dates_are_days_years_months_or_stretches(drawn):
    assert {"{c} > _", "{c} < _", "{c} = _", "{c} LIKE _", "{c} BETWEEN _ AND _"} == forms(drawn["day"])
    for condition in drawn["day"]:
        if match := re.search(r"LIKE '(\d{4})%'", condition.ref.form):
            assert match[1] in condition.phrase and "-" not in condition.phrase


def test_at_least_needs_its_of():
    assert OF_SIZE.sub(r"\1of \2", "with a fee at least {v}") == "with a fee of at least {v}"
    assert OF_SIZE.sub(r"\1of \2", "with a screen at least {v} m wide") == "with a screen at least {v} m wide"
    assert OF_SIZE.sub(r"\1of \2", "with a fee of at least {v}") == "with a fee of at least {v}"
    assert OF_SIZE.sub(r"\1of \2", "that cost at least {v}") == "that cost at least {v}"


def test_or_becomes_in():
    either = Condition(Ref(FILMS, GENRE, "{c} = 'war' OR {c} = 'drama'"), "of genre war or drama", "or")
    assert as_list(either).ref.form == "{c} IN ('war', 'drama')" and as_list(either).kind == "in"
    plain = Condition(Ref(FILMS, GENRE, "{c} = 'war'"), "of genre war")
    assert as_list(plain) is plain and is_plain(plain)
    assert not is_plain(Condition(plain.ref, "", adjective="war"))
