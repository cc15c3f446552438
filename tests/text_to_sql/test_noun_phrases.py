"""Noun phrases: the order of their words, and what may stand beside what."""

import random

import pytest

from helpers.text_to_sql.asked_conditions import Condition
from helpers.text_to_sql.domains import Column, Schema, Table
from helpers.text_to_sql.noun_phrases import NounPhrase, draw_row, go_together, nested, noun_phrase
from helpers.text_to_sql.sql import Ref
from helpers.text_to_sql.variants import draw_schema
from helpers.text_to_sql.wording import Speaker

NAME = Column("name", values=("Sea View",), nouns=("name",), label=True)
FLATS = Table("flats", "flat", ("flats",), (NAME,))


def says(phrase="", adjective="", **options):
    return Condition(Ref(FLATS, NAME), phrase, adjective=adjective, **options)


def words(*conditions, either=False):
    return NounPhrase(FLATS, "flats", list(conditions), either).them


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([says(adjective="cheap")], "cheap flats"),
        ([says("in Oslo"), says("with two rooms")], "flats in Oslo with two rooms"),
        ([says("with two rooms"), says("with a view")], "flats with two rooms and with a view"),
        ([says("in Oslo"), says("that cost 5")], "flats in Oslo that cost 5"),
        ([says("that cost 5"), says("that face the sea")], "flats that cost 5 and face the sea"),
        ([says("that cost 5"), says("that nobody rents")], "flats that cost 5 and that nobody rents"),
        ([says("that cost 5"), says("that Ann Lee owns")], "flats that cost 5 and that Ann Lee owns"),
        ([says("that cost 5"), says("that over 9 people rent")], "flats that cost 5 and that over 9 people rent"),
        ([says("that cost 5"), says("whose rent is 3")], "flats that cost 5 and whose rent is 3"),
        (
            [says("over 9 m"), says("built in 2015"), says("with a view")],
            "flats over 9 m, built in 2015 and with a view",
        ),
    ],
)
def test_phrases_are_joined_as_people_do(conditions, expected):
    assert words(*conditions) == expected


def test_either():
    assert words(says("in Oslo"), says("with two rooms"), either=True) == "flats in Oslo or with two rooms"


def test_what_must_not_stand_together():
    assert go_together(says("in Oslo"), says("with two rooms"))
    assert not go_together(says("in Oslo"), says("in oil")), "two places, or what?"
    assert not go_together(says(adjective="red"), says(adjective="cheap"))
    owned = says("owned by firms from Oslo", is_nested=True)
    assert go_together(owned, says("with two rooms")) and go_together(says(adjective="red"), owned)
    assert not go_together(owned, says("that cost 5")), "the firms seem to cost 5"
    assert not go_together(says("of firms from Oslo", is_nested=True), says("with two rooms"))


def test_a_nested_either_is_refused_and_a_nested_or_becomes_in():
    two = NounPhrase(FLATS, "flats", [says("in Oslo"), says("with two rooms")], either=True)
    assert nested("let by {p}", "{p}", two) is None, "its OR would turn into AND"
    form = "{c} = 'a' OR {c} = 'b'"
    one = NounPhrase(FLATS, "flats", [Condition(Ref(FLATS, NAME, form), "called a or b", "or")])
    assert nested("let by {p}", "{p}", one).ref.form == "{c} IN ('a', 'b')"


def test_conditions_stand_in_the_order_of_the_words():
    """The query's conditions follow the question's, from left to right."""
    for seed in range(200):
        rng = random.Random(seed)
        schema, _ = draw_schema(rng, "train", 0.0)
        s = Speaker(rng, schema, True)
        phrase = noun_phrase(s, rng.choice(list(schema.tables.values())), 3, links=0.5)
        places = [phrase.them.index(c.adjective or c.phrase.partition(" ")[2] or c.phrase) for c in phrase.conditions]
        assert places == sorted(places), phrase.them


def test_a_long_phrase_is_known_as_one():
    assert not NounPhrase(FLATS, "flats", [says("in Oslo")]).is_long
    assert NounPhrase(FLATS, "flats", [says("that cost 5")]).is_long
    assert NounPhrase(FLATS, "flats", [says("with a view of the old harbour")]).is_long


def test_a_row_with_a_number_is_called_with_its_noun():
    order = Table("orders", "order", ("orders",), (Column("no", "INTEGER", (7, 7), label=True),))
    s = Speaker(random.Random(0), Schema("shop", {"orders": order}), True)
    row = draw_row(s, order)
    assert (row.value, row.text, row.ref.form) == ("7", "order 7", "{c} = 7")
    assert draw_row(s, FLATS).text == "Sea View"
