"""Fillings on which queries differ that agree on a handful of plain rows."""

import pytest

from helpers.text_to_sql.evaluate import is_correct
from helpers.text_to_sql.filling import can_judge, filled_rows
from helpers.text_to_sql.sandbox import ExecutionError

PEOPLE = (
    "CREATE TABLE people (pid INTEGER PRIMARY KEY, name TEXT, age INTEGER, height REAL, country TEXT); "
    "CREATE TABLE towns (town TEXT, size INTEGER); CREATE TABLE pets (pet TEXT, person_id INTEGER)"
)
NAMED = "SELECT name FROM people WHERE "
OWNERS = "SELECT T1.name, T2.pet FROM people AS T1 LEFT JOIN pets AS T2 ON T1.pid = T2.person_id"
OWNED = "SELECT T1.pet, T2.name FROM pets AS T1 JOIN people AS T2 ON T1.person_id = T2.pid"
WRONG = {
    "whole averages": [
        ("SELECT AVG(age) FROM people", "SELECT SUM(age) / COUNT(age) FROM people"),
        ("SELECT AVG(age) FROM people", "SELECT CAST(AVG(age) AS INTEGER) FROM people"),
        ("SELECT AVG(age) FROM people", "SELECT ROUND(AVG(age)) FROM people"),
        (
            "SELECT AVG(age) FROM people WHERE country = 'Chad'",
            "SELECT SUM(age) / COUNT(*) FROM people WHERE country = 'Chad'",
        ),
        (
            "SELECT country, AVG(age) FROM people GROUP BY country",
            "SELECT country, SUM(age) / COUNT(*) FROM people GROUP BY country",
        ),
        ("SELECT SUM(age) * 1.0 / COUNT(*) FROM people", "SELECT SUM(age) / COUNT(*) FROM people"),
        ("SELECT CAST(SUM(age) AS REAL) / COUNT(*) FROM people", "SELECT SUM(age) / COUNT(*) FROM people"),
    ],
    "patterns": [
        (NAMED + "name LIKE '%Ann%'", NAMED + "name = 'Ann'"),
        (NAMED + "name LIKE '%Ann%'", NAMED + "name LIKE 'Ann%'"),
        (NAMED + "name LIKE '%Ann%'", NAMED + "name LIKE '%Ann'"),
        (NAMED + "name LIKE '%Ann%'", NAMED + "name LIKE '% Ann %'"),
        (NAMED + "name LIKE 'Ann%'", NAMED + "name = 'Ann'"),
        (NAMED + "name LIKE 'Ann%'", NAMED + "name LIKE '%Ann%'"),
        (NAMED + "name LIKE '%Ann'", NAMED + "name = 'Ann'"),
        (NAMED + "name LIKE '%Ann'", NAMED + "name LIKE '%Ann%'"),
        (NAMED + "name LIKE '_nn%'", NAMED + "name LIKE '%nn%'"),
        (NAMED + "name NOT LIKE '%Ann%'", NAMED + "name != 'Ann'"),
        (NAMED + "name NOT LIKE '%Ann%'", "SELECT name FROM people"),
        (NAMED + "age LIKE '19%'", NAMED + "age = 19"),
        (NAMED + "name = 'Ann'", NAMED + "name LIKE '%Ann%'"),
        (NAMED + "name < 'Ann'", NAMED + "name <= 'Ann'"),
        (NAMED + "name >= 'Zoe'", NAMED + "name > 'Zoe'"),
    ],
    "NULL": [
        (NAMED + "country IS NULL", NAMED + "country = ''"),
        (NAMED + "country IS NULL", NAMED + "country = NULL"),
        (NAMED + "country IS NULL", "SELECT name FROM people"),
        (NAMED + "age IS NULL", NAMED + "age = 0"),
        (NAMED + "country IS NOT NULL", "SELECT name FROM people"),
        (NAMED + "country IS NOT NULL", NAMED + "country != ''"),
        (NAMED + "age > 30 AND country IS NOT NULL", NAMED + "age > 30"),
        ("SELECT COUNT(age) FROM people", "SELECT COUNT(*) FROM people"),
        ("SELECT COUNT(country) FROM people WHERE age > 30", "SELECT COUNT(*) FROM people WHERE age > 30"),
        ("SELECT COUNT(age) FROM people", "SELECT COUNT(country) FROM people"),
        ("SELECT COALESCE(country, 'none') FROM people", "SELECT country FROM people"),
        ("SELECT AVG(COALESCE(age, 0)) FROM people", "SELECT AVG(age) FROM people"),
    ],
    "outer joins": [
        (OWNERS, OWNERS.replace("LEFT JOIN", "JOIN")),
        (OWNERS + " WHERE T2.pet IS NULL", OWNERS),
        (OWNED, OWNED.replace("JOIN", "LEFT JOIN")),
        (OWNED + " WHERE T2.pid > 400", OWNED + " WHERE T2.pid >= 400"),
        (OWNED.replace("JOIN", "LEFT JOIN"), OWNED),
    ],
    "other tables": [
        ("SELECT COUNT(*) FROM people", "SELECT COUNT(*) FROM towns"),
        ("SELECT COUNT(*) FROM towns", "SELECT COUNT(*) FROM pets"),
        ("SELECT COUNT(*) FROM pets", "SELECT COUNT(*) FROM people"),
        ("SELECT COUNT(*) FROM people AS T1 JOIN pets AS T2 ON T1.pid = T2.person_id", "SELECT COUNT(*) FROM towns"),
    ],
    "dates": [
        (NAMED + "country >= '2020-01-01'", NAMED + "country > '2020-01-01'"),
        (NAMED + "country >= '2020-01-01' AND country < '2021-01-01'", NAMED + "country < '2021-01-01'"),
        (NAMED + "country < '2020-02-30'", "SELECT name FROM people"),
    ],
    "queries in queries": [
        (NAMED + "pid IN (SELECT person_id FROM pets)", "SELECT name FROM people"),
        (NAMED + "pid NOT IN (SELECT person_id FROM pets)", NAMED + "pid IN (SELECT person_id FROM pets)"),
        (NAMED + "country IN ('A', 'B', 'C', 'D')", NAMED + "country IN ('A', 'B', 'C')"),
        (NAMED + "age NOT BETWEEN 20 AND 30", "SELECT name FROM people"),
        (
            "SELECT country FROM people WHERE age > 30 INTERSECT SELECT country FROM people WHERE age < 25",
            "SELECT country FROM people WHERE age > 30 UNION SELECT country FROM people WHERE age < 25",
        ),
        (
            "SELECT country FROM people WHERE age = 30 GROUP BY country HAVING COUNT(*) > 7",
            "SELECT country FROM people WHERE age = 30 GROUP BY country HAVING COUNT(*) >= 7",
        ),
    ],
}


@pytest.mark.parametrize(("reference", "mistake"), [pair for pairs in WRONG.values() for pair in pairs])
def test_a_query_that_differs_is_wrong(reference: str, mistake: str) -> None:
    for seed in range(4):
        assert is_correct(reference, PEOPLE, reference, seed)
        assert not is_correct(mistake, PEOPLE, reference, seed)


@pytest.mark.parametrize(
    ("reference", "rewritten"),
    [
        ("SELECT AVG(height) FROM people", "SELECT SUM(height) / COUNT(height) FROM people"),
        ("SELECT AVG(age) FROM people", "SELECT SUM(age) * 1.0 / COUNT(age) FROM people"),
        (NAMED + "name LIKE '%Ann%'", NAMED + "instr(lower(name), 'ann') > 0"),
        ("SELECT COUNT(pid) FROM people", "SELECT COUNT(*) FROM people"),  # a key is never NULL
        ("SELECT COUNT(DISTINCT country) FROM people", "SELECT COUNT(*) FROM (SELECT DISTINCT country FROM people)"),
        (NAMED + "country IS NOT NULL", NAMED + "NOT country IS NULL"),
        (OWNED, OWNED.replace("JOIN", "INNER JOIN")),
        (OWNERS + " WHERE T2.pet = 'cat'", OWNERS.replace("LEFT JOIN", "JOIN") + " WHERE T2.pet = 'cat'"),
    ],
)
def test_a_query_that_is_the_same_is_right(reference: str, rewritten: str) -> None:
    assert all(is_correct(rewritten, PEOPLE, reference, seed) for seed in range(4))


def test_tables_have_different_sizes_and_only_asked_columns_hold_nulls() -> None:
    rows = filled_rows(PEOPLE, "SELECT COUNT(country) FROM people", 0)
    assert len({len(tuples) for tuples in rows.values()}) == 3
    nulls = [[value is None for value in column] for column in zip(*rows["people"])]
    assert [any(column) for column in nulls] == [False, False, False, False, True] and not all(nulls[4])


@pytest.mark.parametrize(
    "reference",
    [
        NAMED + "age > 30 AND age < 20",
        "SELECT COUNT(*) FROM people WHERE age > 30 AND age < 20",
        "SELECT MAX(age) FROM people WHERE 1 = 0",
        "SELECT country FROM people WHERE country IS NULL",
        NAMED + "country = NULL",
    ],
)
def test_a_reference_that_returns_nothing_judges_nothing(reference: str) -> None:
    assert not can_judge(PEOPLE, reference)
    with pytest.raises(ExecutionError, match="returns nothing, only NULL or only 0"):
        is_correct(reference, PEOPLE, reference)


def test_zero_is_an_answer_where_rows_hold_it() -> None:
    reference = "SELECT age FROM people WHERE age = 0"
    assert can_judge(PEOPLE, reference) and not is_correct(NAMED + "1 = 0", PEOPLE, reference)


def test_numbers_in_columns_of_text_are_added_up() -> None:
    context = "CREATE TABLE games (team VARCHAR, points VARCHAR)"  # as sql-create-context declares them
    assert is_correct("SELECT AVG(points) FROM games", context, "SELECT AVG(points) FROM games")
    assert not is_correct("SELECT SUM(points) FROM games", context, "SELECT AVG(points) FROM games")


def test_columns_in_square_brackets() -> None:
    context = "CREATE TABLE shops ([order] INTEGER, [group by] TEXT)"
    reference = "SELECT [order] FROM shops WHERE [group by] = 'x' AND [order] > 3 ORDER BY [order]"
    for seed in range(3):
        assert is_correct(reference.replace("[order]", '"order"'), context, reference, seed)
        assert not is_correct(reference.replace("> 3", ">= 3"), context, reference, seed)
        assert not is_correct(reference + " DESC", context, reference, seed)
