"""Variants of schemas: drawn from the seed, with names that SQL allows, and words held out of training."""

import random
import re

import pytest

from helpers.text_to_sql.domains import schemas
from helpers.text_to_sql.variants import KEYWORDS, draw_schema
from helpers.text_to_sql.words import real_words

SEEDS = range(150)


def variant(seed, split="train", rare_share=None):
    options = {} if rare_share is None else {"rare_share": rare_share}
    return draw_schema(random.Random(seed), split, **options)


def names_of(context):
    """Tables' and columns' names in CREATE TABLE statements."""
    names = re.findall(r"CREATE TABLE (\w+)", context)
    for columns in re.findall(r"\((.*?)\)(?:;|$)", context):
        names += [column.split()[0] for column in columns.split(", ")]
    return names


def keywords_in(context):
    return [name for name in names_of(context) if name.lower() in KEYWORDS]


def leaked_words(context, held_out):
    return set(re.findall(r"[a-z]+", context.lower())) & held_out


def spoken_words(split):
    tables = [t for s in schemas(split) for t in s.tables.values()]
    return {w for t in tables for n in (t.name, *(c.name for c in t.columns)) for w in re.findall("[a-z]+", n.lower())}


@pytest.mark.parametrize("kind", ["nouns", "names"])
def test_rare_words_of_training_and_of_the_others_are_disjoint(kind):
    assert not set(real_words(kind, True)) & set(real_words(kind, False))


def test_training_shows_no_held_out_word_as_a_name():
    held_out = {word.lower() for word in real_words("nouns", False)} - spoken_words("train")
    types = {"create", "table", "text", "integer", "real", "date", "int", "decimal", "float", "varchar"}
    held_out -= types | {"name", "title", "code"}
    for seed in SEEDS:
        assert not leaked_words(variant(seed, rare_share=1.0)[1], held_out)
    assert leaked_words(f"CREATE TABLE {min(held_out)} (name TEXT)", held_out), "a planted one is caught"


def test_no_name_is_a_keyword():
    for split in ("train", "test"):
        for seed in SEEDS:
            assert not keywords_in(variant(seed, split, 0.6)[1])
    assert keywords_in("CREATE TABLE set (name TEXT)") == ["set"]


def test_the_same_seed_draws_the_same_variant():
    assert variant(4) == variant(4)
    assert len({variant(seed)[1] for seed in SEEDS}) > 140


def test_tables_of_a_variant_are_linked():
    for seed in SEEDS:
        schema, _ = variant(seed, rare_share=0.5)
        links = sum(c.parent in schema.tables for t in schema.tables.values() for c in t.columns)
        assert links >= len(schema.tables) - 1
        assert all(c.parent in ("", *schema.tables) for t in schema.tables.values() for c in t.columns)


def without_case(names):
    return {re.sub(r"[^a-z]", "", name.lower()) for name in names}


def test_without_rare_names_all_names_were_written_by_hand():
    tables = [t for s in schemas("test") for t in s.tables.values()]
    by_hand = without_case(name for t in tables for name in (t.name, *(c.name for c in t.columns)))
    for seed in SEEDS:
        assert without_case(names_of(variant(seed, "test", 0.0)[1])) <= by_hand
    rare = [names_of(variant(seed, "train", 1.0)[1]) for seed in SEEDS]
    assert any(not without_case(names) <= by_hand for names in rare)
