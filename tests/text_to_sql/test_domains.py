"""The handwritten schemas: enough of them, split by domain, and no word of a table means two of its columns."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

from helpers.text_to_sql.domains import FOLDER, HELD_OUT, Column, Table, schemas, split_of

SPLITS = ("train", "validation", "test")


def tables_of(split):
    return [table for schema in schemas(split) for table in schema.tables.values()]


def shared_tables(tables, others):
    """Tables with the same set of column names in both."""
    names = {frozenset(c.name for c in table.columns) for table in others}
    return [table.name for table in tables if frozenset(c.name for c in table.columns) in names]


def ambiguous_words(table):
    """Nouns, superlatives and comparisons that mean more than one of the table's columns."""
    meanings = Counter((noun, "noun") for c in table.columns for noun in c.nouns if c.is_asked)
    for use in ("most", "least", "more", "less", "average", "total", "ask"):
        meanings.update((phrase, use) for c in table.columns for phrase in set(c.phrases.get(use, ())))
    return [word for word, count in meanings.items() if count > 1]


def phrases_without_value(table):
    uses = ("is", "isnt", "more", "less", "in")
    return [p for c in table.columns for use in uses for p in c.phrases.get(use, ()) if p.count("{v}") != 1]


def test_there_are_at_least_120_schemas_in_40_domains():
    assert sum(len(schemas(split)) for split in SPLITS) >= 120
    assert len({schema.domain for split in SPLITS for schema in schemas(split)}) >= 40


def test_each_domain_belongs_to_one_split():
    domains = [{schema.domain for schema in schemas(split)} for split in SPLITS]
    assert not any(a & b for a, b in combinations(domains, 2))
    assert set.union(*domains) == {file.stem for file in FOLDER.glob("*.yaml")}
    assert set(sum(HELD_OUT.values(), ())) <= set.union(*domains)
    assert split_of("hotel") == "test" and split_of("films") == "train"


def test_no_table_is_in_two_splits():
    for a, b in combinations(SPLITS, 2):
        assert not shared_tables(tables_of(a), tables_of(b))
    planted = replace(tables_of("test")[0], name="renamed")
    assert shared_tables([planted], tables_of("test")) == ["renamed"]


def test_no_word_means_two_columns_of_a_table():
    assert not {t.name: words for split in SPLITS for t in tables_of(split) if (words := ambiguous_words(t))}
    height, width = Column("h", "REAL", nouns=("size",)), Column("w", "REAL", nouns=("size",))
    assert ambiguous_words(Table("box", "box", ("boxes",), (height, width))) == [("size", "noun")]


def test_every_phrase_has_room_for_its_value():
    assert not [p for split in SPLITS for t in tables_of(split) for p in phrases_without_value(t)]
    bare = Column("price", "REAL", phrases={"more": ("that are expensive",)})
    assert phrases_without_value(Table("box", "box", ("boxes",), (bare,)))


def test_a_label_is_not_called_as_the_rows_are():
    for split in SPLITS:
        for table in tables_of(split):
            assert table.one not in table.label.nouns, table.name


def test_numbers_that_name_are_no_measures():
    rooms = next(t for t in tables_of("test") if t.name == "room_list")
    measures = {c.name for c in rooms.columns if c.is_measure}
    assert "storey" not in measures and "room_no" not in measures and {"size_m2", "rate"} <= measures
    years = [c for split in SPLITS for t in tables_of(split) for c in t.columns if c.is_year]
    assert years and not any(c.is_measure for c in years)


def test_foreign_keys_lead_to_keys():
    for split in SPLITS:
        for schema in schemas(split):
            for column in (c for t in schema.tables.values() for c in t.columns if c.parent):
                assert schema.tables[column.parent].key, (schema.domain, column.name)
                assert column.phrases["by"] and column.phrases["has"] and column.phrases["asks"]
