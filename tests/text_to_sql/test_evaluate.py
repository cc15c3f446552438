"""Execution accuracy: references are right, likely mistakes are wrong, and a hostile prediction is only wrong."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.text_to_sql.evaluate import is_correct
from helpers.text_to_sql.filling import best_filling, filled_database
from helpers.text_to_sql.mutants import mutants
from helpers.text_to_sql.reference import literal_of, tokens_of
from helpers.text_to_sql.sandbox import ExecutionError, run_sql

HANDWRITTEN = Path(__file__).parents[2] / "data" / "text_to_sql" / "handwritten.jsonl"
ITEMS = [json.loads(line) for line in HANDWRITTEN.read_text(encoding="utf-8").splitlines()]
HIVES = "CREATE TABLE beehives (hive TEXT, apiary TEXT, honey_kg REAL, queen_age INTEGER)"
TRAMS = (
    "CREATE TABLE depots (id INTEGER, depot_name TEXT, district TEXT); "
    "CREATE TABLE tram_lines (line_no INTEGER, terminus TEXT, depot_id INTEGER)"
)
JOIN = (
    "SELECT T1.line_no FROM tram_lines AS T1 JOIN depots AS T2 ON T1.depot_id = T2.id "
    "WHERE T2.depot_name = 'Harbour Lane'"
)


def refuted(item: dict, seed: int) -> set[str]:
    context, reference = item["context"], item["answer"]
    return {sql for sql in mutants(reference, context) if not is_correct(sql, context, reference, seed)}


def test_handwritten_questions_are_three_to_each_of_forty_schemas() -> None:
    assert len({item["id"] for item in ITEMS}) == 120
    assert set(Counter(item["context"] for item in ITEMS).values()) == {3}


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["id"])
def test_handwritten_reference_is_right_and_not_empty(item: dict) -> None:
    assert is_correct(item["answer"], item["context"], item["answer"])
    with filled_database(item["context"], item["answer"]) as connection:
        rows = run_sql(item["answer"], connection)
    assert any(value not in (None, 0) for row in rows for value in row)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["id"])
def test_handwritten_values_stand_in_the_question(item: dict) -> None:
    """A number may be a word there, and a pattern stands there without its wildcards."""
    tokens = tokens_of(item["answer"])
    values = [str(v).strip("%") for token in tokens if (v := literal_of(token)) is not None and token != "1"]
    question = item["question"].replace(" ten ", " 10 ")
    assert [value for value in values if value not in question] == []


def test_nearly_all_mutants_that_are_not_equivalent_are_refuted() -> None:
    alive, different = 0, 0
    for item in ITEMS[::2]:  # half of them: it takes seconds
        ever = set().union(*(refuted(item, seed) for seed in range(1, 5)))  # seen to differ on some other filling
        alive += len(ever - refuted(item, 0))
        different += len(ever)
    assert different > 600
    assert alive <= 0.05 * different


BOTH = "SELECT hive FROM beehives WHERE apiary = 'Thornfield' AND honey_kg > 20"


@pytest.mark.parametrize(
    ("context", "reference", "mistake"),
    [
        (HIVES, BOTH, "SELECT hive FROM beehives WHERE apiary = 'Thornfield'"),
        (HIVES, BOTH, "SELECT hive FROM beehives WHERE honey_kg > 20"),
        (HIVES, BOTH, "SELECT hive FROM beehives WHERE apiary = 'Thornfield' OR honey_kg > 20"),
        (HIVES, BOTH, "SELECT hive FROM beehives WHERE apiary = 'Thornfield' AND honey_kg >= 20"),
        (HIVES, BOTH, "SELECT hive FROM beehives WHERE apiary = 'thornfield' AND honey_kg > 20"),
        (HIVES, BOTH, "SELECT apiary FROM beehives WHERE apiary = 'Thornfield' AND honey_kg > 20"),
        (HIVES, BOTH, "SELECT hive FROM beehives WHERE apiary = 'Thornfield' AND queen_age > 20"),
        (HIVES, "SELECT DISTINCT apiary FROM beehives", "SELECT apiary FROM beehives"),
        (HIVES, "SELECT COUNT(DISTINCT apiary) FROM beehives", "SELECT COUNT(apiary) FROM beehives"),
        (HIVES, "SELECT hive FROM beehives ORDER BY honey_kg", "SELECT hive FROM beehives"),
        (HIVES, "SELECT hive FROM beehives ORDER BY honey_kg", "SELECT hive FROM beehives ORDER BY honey_kg DESC"),
        (
            HIVES,
            "SELECT hive FROM beehives ORDER BY honey_kg LIMIT 3",
            "SELECT hive FROM beehives ORDER BY honey_kg LIMIT 4",
        ),
        (HIVES, "SELECT MAX(honey_kg) FROM beehives", "SELECT SUM(honey_kg) FROM beehives"),
        (
            HIVES,
            "SELECT apiary FROM beehives GROUP BY apiary HAVING COUNT(*) > 3",
            "SELECT apiary FROM beehives GROUP BY apiary HAVING COUNT(*) >= 3",
        ),
        (
            HIVES,
            "SELECT hive FROM beehives WHERE queen_age BETWEEN 2 AND 4",
            "SELECT hive FROM beehives WHERE queen_age > 2 AND queen_age < 4",
        ),
        (TRAMS, JOIN, JOIN.replace("T2.id", "T1.line_no")),
        (TRAMS, JOIN, "SELECT line_no FROM tram_lines"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_planted_mistakes_are_wrong(context: str, reference: str, mistake: str, seed: int) -> None:
    assert not is_correct(mistake, context, reference, seed)


@pytest.mark.parametrize(
    ("context", "reference", "rewritten"),
    [
        (HIVES, BOTH, "select B.hive from beehives as B where B.honey_kg>20 and B.apiary='Thornfield';"),
        (HIVES, BOTH, "SELECT hive FROM beehives WHERE apiary = 'Thornfield' AND honey_kg > 20 ORDER BY hive DESC"),
        (HIVES, "SELECT COUNT(*) FROM beehives", "SELECT COUNT(*) * 1.0 FROM beehives"),
        (HIVES, "SELECT AVG(honey_kg) FROM beehives", "SELECT SUM(honey_kg) / COUNT(honey_kg) FROM beehives"),
        (HIVES, "SELECT DISTINCT apiary FROM beehives", "SELECT apiary FROM beehives GROUP BY 1"),
        (
            HIVES,
            "SELECT hive FROM beehives ORDER BY honey_kg DESC LIMIT 1",
            "SELECT hive FROM beehives WHERE honey_kg = (SELECT MAX(honey_kg) FROM beehives)",
        ),
        (TRAMS, JOIN, JOIN.replace("T1", "a").replace("T2", "b").replace("a.depot_id = b.id", "b.id = a.depot_id")),
        (
            TRAMS,
            JOIN,
            "SELECT line_no FROM depots, tram_lines WHERE depot_id = depots.id AND depot_name = 'Harbour Lane'",
        ),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_equivalent_rewrites_are_right(context: str, reference: str, rewritten: str, seed: int) -> None:
    assert is_correct(rewritten, context, reference, seed)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT "
HOSTILE = {
    "drop": "DROP TABLE beehives",
    "insert": "INSERT INTO beehives VALUES ('a', 'b', 1, 1)",
    "upsert": "INSERT OR IGNORE INTO beehives (hive) VALUES ('a')",
    "delete": "DELETE FROM beehives",
    "update": "UPDATE beehives SET hive = 'x' RETURNING hive",
    "create": "CREATE TABLE t (x)",
    "temp": "CREATE TEMP TABLE t AS SELECT * FROM beehives",
    "attach": "ATTACH DATABASE '/tmp/planted.db' AS planted",
    "vacuum": "VACUUM INTO '/tmp/planted.db'",
    "pragma": "PRAGMA query_only = OFF",
    "pragma function": "SELECT name FROM pragma_table_info('beehives')",
    "begin": "BEGIN EXCLUSIVE",
    "extension": "SELECT load_extension('/tmp/planted.so')",
    "two statements": BOTH + "; DROP TABLE beehives",
    "endless count": ENDLESS + "COUNT(*) FROM n",
    "endless rows": ENDLESS + "x FROM n",
    "endless wide sort": ENDLESS.replace("1 UNION", "printf('%4000d', 1) UNION").replace("x + 1", "x")
    + "x FROM n ORDER BY x",
    "endless text": ENDLESS + "group_concat(x) FROM n",
    "cross join": "SELECT COUNT(*) FROM " + ", ".join(f"beehives AS t{i}" for i in range(12)),
    "zeroblob": "SELECT zeroblob(1e9)",
    "randomblob": "SELECT hex(randomblob(1000000000))",
    "printf": "SELECT printf('%1000000000d', 1)",
    "replace": "SELECT replace(printf('%4000d', 1), ' ', printf('%4000d', 1))",
    "like": "SELECT printf('%4000d', 1) LIKE '" + "% _" * 1000 + "'",
    "megabyte": "SELECT '" + "x" * 1_000_000 + "'",
    "deep": "SELECT " + "(" * 4000 + "1" + ")" * 4000,
    "nul": "SELECT hive\0 FROM beehives",
    "surrogate": "SELECT '\ud800'",
    "bad utf-8": "SELECT CAST(x'ff' AS TEXT)",
    "overflow": "SELECT SUM(9223372036854775807) FROM beehives",
    "parameter": "SELECT hive FROM beehives WHERE hive = ?",
    "prose": "Sure! Here is the query you asked for.",
    "fenced": "```sql\nSELECT hive FROM beehives\n```",
    "comment": "-- nothing",
    "semicolon": ";",
    "empty": "",
    "missing": None,
    "number": 5,
}


@pytest.mark.parametrize("prediction", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_predictions_are_wrong_within_a_second(prediction: str | None) -> None:
    is_correct(BOTH, HIVES, BOTH)  # the filling is made before the clock starts
    started = time.perf_counter()
    assert not is_correct(prediction, HIVES, BOTH)
    assert time.perf_counter() - started < 1


def test_hostile_predictions_leave_the_database_as_it_was() -> None:
    with filled_database(HIVES, BOTH) as connection:
        before = run_sql("SELECT * FROM beehives", connection), run_sql("SELECT * FROM sqlite_master", connection)
        for prediction in HOSTILE.values():
            try:
                run_sql(prediction, connection)
            except ExecutionError as error:
                assert str(error).endswith(".")
        after = run_sql("SELECT * FROM beehives", connection), run_sql("SELECT * FROM sqlite_master", connection)
    assert after == before
    assert not Path("/tmp/planted.db").exists()


def jumbled(*tokens: str) -> st.SearchStrategy[str]:
    """Any text, or these tokens in any order: nearly SQL."""
    return st.one_of(st.text(), st.lists(st.sampled_from(tokens)).map(" ".join))


@settings(max_examples=200, deadline=None)
@given(jumbled(*tokens_of(JOIN + BOTH), "(", "''", "\0"))
def test_arbitrary_text_never_raises(prediction: str) -> None:
    assert is_correct(prediction, HIVES, BOTH) in (True, False)


@settings(max_examples=60, deadline=None)
@given(jumbled(*tokens_of(HIVES), "AS", "SELECT 1", ";"))
def test_arbitrary_context_gives_our_error_or_a_verdict(context: str) -> None:
    try:
        assert is_correct("SELECT 1", context, "SELECT 1")
    except ExecutionError as error:
        assert "CREATE TABLE" in str(error)


@pytest.mark.parametrize(
    "context",
    [
        "",
        "beehives: hive, apiary",
        "CREATE TABLE beehives",
        "CREATE TABLE order (id INTEGER)",
        "CREATE TABLE a (x TEXT); CREATE TABLE a (x TEXT)",
        "CREATE TABLE a (x TEXT); INSERT INTO a VALUES ('b')",
        "CREATE TABLE a AS SELECT 1",
        "ATTACH '/tmp/planted.db' AS b; CREATE TABLE b.a (x TEXT)",
        "CREATE VIRTUAL TABLE a USING fts5(x)",
        "DROP TABLE sqlite_master",
    ],
)
def test_bad_tables_are_one_clear_sentence(context: str) -> None:
    with pytest.raises(ExecutionError, match="CREATE TABLE"):
        is_correct("SELECT 1", context, "SELECT 1")


def test_bad_reference_is_one_clear_sentence() -> None:
    with pytest.raises(ExecutionError, match="no such column: keeper"):
        is_correct(BOTH, HIVES, "SELECT keeper FROM beehives")


@pytest.mark.parametrize(
    ("context", "reference", "mistake"),
    [
        (
            "CREATE TABLE Clocks (clockName VARCHAR(50), PRICE DECIMAL(10,2), yearMade INT)",
            "SELECT clockName FROM Clocks WHERE PRICE >= 19.5 AND yearMade < 1900",
            "SELECT clockName FROM Clocks WHERE PRICE > 19.5 AND yearMade < 1900",
        ),
        (
            "CREATE TABLE fossils (id INTEGER PRIMARY KEY AUTOINCREMENT, layer VARCHAR NOT NULL UNIQUE, age VARCHAR)",
            'SELECT age FROM fossils WHERE layer = "Upper Chalk"',  # as sql-create-context quotes
            "SELECT id FROM fossils WHERE layer = 'Upper Chalk'",
        ),
        (
            "CREATE TABLE looms (code TEXT PRIMARY KEY, mill TEXT, CHECK (length(mill) < 7)); "
            "CREATE TABLE bolts (bolt TEXT, code TEXT REFERENCES looms(code), metres INTEGER)",
            "SELECT bolt FROM bolts JOIN looms ON bolts.code = looms.code WHERE looms.code = 'L7' AND metres > 40",
            "SELECT bolt FROM bolts JOIN looms ON bolts.code = looms.code WHERE metres > 40",
        ),
        (
            'CREATE TABLE "tea houses" ("tea name" TEXT, strength INTEGER, cups INTEGER)',
            'SELECT "tea name" FROM "tea houses" WHERE strength = 3 OR cups != 2',
            'SELECT "tea name" FROM "tea houses" WHERE strength = 3 AND cups != 2',
        ),
        (
            "CREATE TABLE bells (bell TEXT, tower TEXT, cast_year VARCHAR)",
            'SELECT COUNT(bell) FROM bells WHERE cast_year > "1850"',
            'SELECT COUNT(bell) FROM bells WHERE cast_year >= "1850"',
        ),
    ],
)
def test_other_ways_to_write_tables(context: str, reference: str, mistake: str) -> None:
    assert is_correct(reference, context, reference)
    assert not is_correct(mistake, context, reference)


def test_the_same_seed_fills_alike_and_another_differently() -> None:
    def rows(seed: int) -> list[tuple]:
        best_filling.cache_clear()
        with filled_database(TRAMS, JOIN, seed) as connection:
            return run_sql("SELECT * FROM depots, tram_lines", connection)

    assert rows(0) == rows(0) != rows(1)
