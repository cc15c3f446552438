"""Kinds of query: each draws what it says, and words enough of its own."""

import random
import re
from collections import Counter

import pytest

from helpers.text_to_sql.asked import Asked
from helpers.text_to_sql.domains import schemas
from helpers.text_to_sql.queries import KIND_OF_TEMPLATE, KINDS, kind_of
from helpers.text_to_sql.questions import templates
from helpers.text_to_sql.sql import Query
from helpers.text_to_sql.variants import draw_schema
from helpers.text_to_sql.wording import Speaker, phrasings

MIN_PHRASINGS = 15
SHAPES = {
    "which": r"SELECT (DISTINCT )?(T\d\.)?\w+ FROM",
    "columns": r"SELECT [\w, .]+ FROM",
    "star": r"SELECT \* FROM \w+ WHERE",
    "star_one": r"SELECT \* FROM \w+ WHERE \w+ = ",
    "ask_one": r"SELECT \w+ FROM \w+ WHERE \w+ = ",
    "ask_two": r"SELECT \w+, [\w, ]+ FROM \w+ WHERE \w+ = ",
    "count": r"SELECT COUNT\(\*\) FROM",
    "distinct": r"SELECT (DISTINCT|COUNT\(DISTINCT)",
    "aggregate": r"SELECT (AVG|SUM|MIN|MAX)\(",
    "sorted_rows": r".* ORDER BY [\w.]+( DESC)?$",
    "extreme": r".* ORDER BY [\w.]+( DESC)? LIMIT \d+$",
    "group_count": r"SELECT ([\w.]+), COUNT\(\*\) .* GROUP BY \1$",
    "group_aggregate": r"SELECT ([\w.]+), (AVG|SUM|MIN|MAX)\(.* GROUP BY \1$",
    "having": r"SELECT ([\w.]+) .* GROUP BY \1 HAVING COUNT\(\*\) (>=?|<|=) \d$",
    "common": r"SELECT ([\w.]+) .* GROUP BY \1 ORDER BY COUNT\(\*\)( DESC)? LIMIT 1$",
    "columns_of_both": r"SELECT [\w, .]+ FROM .* JOIN",
    "ask_parent": r"SELECT T2\.\w+ FROM .* JOIN .* WHERE T1\.",
    "count_of_parent": r"SELECT COUNT\(\*\) FROM .* JOIN .* WHERE T2\.",
    "with_children": r"SELECT DISTINCT T\d\.\w+ FROM .* JOIN|SELECT \w+ FROM \w+ WHERE \w+ NOT IN \(SELECT",
    "across_three": r"SELECT .* JOIN .* JOIN .* WHERE",
    "children_of_each": r"SELECT T\d\.\w+(, COUNT\(\*\))? FROM .* JOIN .* GROUP BY",
    "same_as": r"SELECT (\w+) FROM (\w+) WHERE (\w+) = \(SELECT \3 FROM \2 WHERE \1 = ",
}


def question_kinds():
    """Lists of whole questions, not of phrases within them."""
    parts = {kind for kind, lines in phrasings().items() if any("say}" in line for line in lines)} | {"parent_of"}
    return {kind: lines for kind, lines in phrasings().items() if kind not in parts}


def short_lists(kinds):
    return [kind for kind, lines in kinds.items() if len(set(lines)) < MIN_PHRASINGS]


def drawn(ask, split="train", rare_share=0.2, seeds=range(120)):
    for seed in seeds:
        rng = random.Random(f"{ask.__name__}/{seed}")
        schema, _ = draw_schema(rng, split, rare_share)
        s = Speaker(rng, schema, split == "train")
        asked = ask(s, rng.choice(list(schema.tables.values())))
        if asked:
            yield asked, asked.query.sql(schema)


@pytest.mark.parametrize("ask", KINDS, ids=lambda ask: ask.__name__)
def test_each_kind_has_its_own_shape(ask):
    made = list(drawn(ask))
    assert made
    for asked, sql in made:
        assert re.match(SHAPES[ask.__name__], sql), sql
        assert asked.own or templates(asked)


def test_every_kind_has_fifteen_phrasings():
    kinds = question_kinds()
    assert not short_lists(kinds)
    assert short_lists(kinds | {"planted": ["what is it?"] * 20}) == ["planted"]
    assert set(KIND_OF_TEMPLATE) <= set(kinds)


def test_own_questions_are_many():
    """Of what columns bring themselves, too, there are many phrasings."""
    asks = {
        q for s in schemas("train") for t in s.tables.values() for c in t.columns for q in c.phrases.get("asks", ())
    }
    assert len(asks) > 100


def test_every_list_leaves_some_for_long_phrases_and_for_rows_without_names():
    for kind in question_kinds():
        asked = Asked(Query([], []), kind, is_long=True, has_names=False)
        assert len(templates(asked)) >= 5, kind


def test_a_long_phrase_is_followed_by_nothing_in_the_same_breath():
    asked = Asked(Query([], []), "count", is_long=True)
    assert "how many {them} are there?" not in templates(asked)
    assert {"count the {them}.", "{them}, how many?"} <= set(templates(asked))


def test_every_slot_is_filled():
    slots = Counter()
    for ask in KINDS:
        for asked, _ in drawn(ask, seeds=range(25)):
            if asked.template:
                missing = {s for t in templates(asked) for s in re.findall(r"\{(\w+)\}", t)} - set(asked.slots)
                slots.update(missing)
    assert not slots


def test_no_query_mixes_or_with_and():
    for ask in KINDS:
        for _, sql in drawn(ask, seeds=range(60)):
            assert not mixes_or_with_and(sql), sql
    assert mixes_or_with_and("SELECT a FROM t WHERE b = 1 OR b = 2 AND c = 3"), "OR binds weaker"


def mixes_or_with_and(sql):
    plain = re.sub(r"'[^']*'", "''", sql)
    plain = re.sub(r"BETWEEN \S+ AND \S+", "", plain)
    return " OR " in plain and " AND " in plain


def test_kinds_are_named_by_their_hardest_part():
    query = Query([], [])
    assert kind_of(Asked(query, "which_pred"), "SELECT a FROM t") == "which"
    assert kind_of(Asked(query, "which"), "SELECT a FROM t AS T1 JOIN u AS T2 ON 1") == "join"
    assert kind_of(Asked(query, "which", kinds={"like"}), "SELECT a FROM t") == "like"
    assert kind_of(Asked(query, "which"), "a JOIN b JOIN c") == "three tables"
