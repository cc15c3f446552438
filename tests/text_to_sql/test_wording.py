"""Words: number, articles, templates that are filled."""

import random
from datetime import date

import pytest

from helpers.text_to_sql.domains import Column, Schema
from helpers.text_to_sql.wording import (
    Speaker,
    counted,
    fill,
    fit_superlatives,
    in_plural,
    is_plural,
    put_value,
    quantity,
    with_article,
)


def speaker(seed=0):
    return Speaker(random.Random(seed), Schema("none", {}), True)


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("price", "prices"),
        ("date of birth", "dates of birth"),
        ("city", "cities"),
        ("rainfall", "rainfall"),
        ("goals", "goals"),
        ("metres gained", "metres gained"),
        ("amount paid back", "amounts paid back"),
        ("climbers a year", "climbers a year"),
        ("wind speed", "wind speeds"),
        ("bonus class", "bonus classes"),
        ("people", "people"),
        ("number of seats", "number of seats"),
    ],
)
def test_the_head_of_a_noun_is_inflected(one, many):
    assert in_plural(one) == many
    assert is_plural(one) == (one == many and one not in ("rainfall", "number of seats"))


def test_what_a_column_counts():
    assert counted("goals") == "goals" and counted("number of seats") == "seats"
    assert counted("price") is None and counted("earnings") is None and counted("estimated hours") is None
    assert quantity("goals") == "number of goals" and quantity("price") == "price"


def test_articles():
    assert [with_article(n) for n in ("price", "offer", "university", "earnings", "rainfall")] == [
        "a price",
        "an offer",
        "a university",
        "earnings",
        "rainfall",
    ]
    assert put_value("with a {v} view", "inland") == "with an inland view"
    assert put_value("with an {v} finish", "matt") == "with a matt finish"
    assert put_value("with a {v} cm chest", "80") == "with an 80 cm chest"


def test_verbs_agree_with_their_noun():
    template = "whose {say} {exceeds|exceed} {v}"
    assert fill(template, {"say": "price"}, "price") == "whose price exceeds {v}"
    assert fill(template, {"say": "points"}, "points") == "whose points exceed {v}"
    assert (
        fill("what {is|are} the {cols}?", {"cols": "price and city"}, "price and city")
        == "what are the price and city?"
    )


def test_a_value_with_braces_or_a_slots_name_is_not_filled_again():
    assert fill("{x} of {one}", {"x": "{one}", "one": "film"}) == "{one} of film"


def test_superlatives_fit_their_noun():
    assert fit_superlatives("the largest length") == "the longest length"
    assert fit_superlatives("with the smallest monthly rent") == "with the lowest monthly rent"
    assert fit_superlatives("the highest price") == "the highest price"
    assert fit_superlatives("the largest area") == "the largest area"
    assert fit_superlatives("the combined total fee") == "the total fee"


def test_a_column_keeps_its_noun_for_one_question():
    column = Column("price", "REAL", nouns=("price", "cost", "amount"))
    s = speaker()
    nouns = set()
    for _ in range(60):
        s.begin()
        assert len({s.noun(column) for _ in range(5)}) == 1
        nouns.add(s.noun(column))
    assert nouns == {"price", "cost", "amount"}


def test_a_date_has_three_spellings():
    s = speaker()
    spellings = {s.day(date(2024, 3, 9)) for _ in range(60)}
    assert spellings == {"2024-03-09", "9 March 2024", "March 9, 2024"}


def test_what_is_counted_has_phrases_of_its_own():
    goals, price = (
        Column("goals", "INTEGER", (0, 90), nouns=("goals",)),
        Column("price", "REAL", (1, 9), nouns=("price",)),
    )
    s = speaker()
    assert all("goals" in s.generic(goals, "gt").split("{v}")[1] for _ in range(20))
    assert not any("price" in s.generic(price, "gt").split("{v}")[1] for _ in range(20))
