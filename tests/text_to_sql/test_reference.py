"""Reading a query: joined by spaces its tokens are the same query, and its names are understood however quoted."""

from contextlib import closing

import pytest

from helpers.text_to_sql.reference import Reference, literal_of, tokens_of
from helpers.text_to_sql.sandbox import run_sql
from helpers.text_to_sql.tables import open_tables

PEOPLE = "CREATE TABLE people (name TEXT, age INTEGER, [order] INTEGER); CREATE TABLE pets (pet TEXT, owner TEXT)"
ROWS = {"people": [("Ann", 30, 1), ("Bo -- Ann", 41, 2), ("C/*o*/", None, 3)], "pets": [("cat", "Ann")]}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name || ' ' || age FROM people",
        "SELECT name FROM people -- of all\nWHERE age > 1",
        "SELECT name /* the name; not\n the age */ FROM people",
        "SELECT name FROM people WHERE name = 'Bo -- Ann' OR name = 'C/*o*/'",
        "SELECT age-1, age -1, age*1.5e1, age/.5, age<<2 FROM people",
        "SELECT hex(x'ff'), 'it''s', age<>30, age!=30, age==30 FROM people",
        'SELECT [order], people.[order], "people"."order", `people`.`order` FROM [people] ORDER BY [order] DESC;',
        "SELECT T1.* FROM people AS T1 JOIN pets ON pets.owner = T1.name",
    ],
)
def test_the_tokens_joined_are_the_same_query(sql: str) -> None:
    with closing(open_tables(PEOPLE, ROWS)) as connection:
        rows = run_sql(sql, connection)
        assert rows and run_sql(" ".join(tokens_of(sql)), connection) == rows


@pytest.mark.parametrize("name", ["[order]", '"order"', "`order`", "people.[order]", "T1.[order]", '"T1"."order"'])
def test_a_column_is_known_however_it_is_quoted(name: str) -> None:
    table = "people" if name.startswith("people") else "people AS T1"
    reference = Reference(f"SELECT name FROM {table} WHERE {name} >= 7", PEOPLE)
    assert [column.name for column in reference.columns if column] == ["name", "order"]
    ((condition,),) = reference.conditions.values()
    assert (condition.operator, condition.literal) == (">=", 7)


def asked(sql: str) -> dict[str, list[tuple]]:
    conditions = Reference(sql, PEOPLE).conditions
    return {column.name: [(c.operator, c.literal) for c in found] for column, found in conditions.items()}


def test_what_is_asked_of_a_column() -> None:
    assert asked("SELECT name FROM people WHERE age BETWEEN 2 AND 5 AND name LIKE '%Ann%'") == {
        "age": [(">=", 2), ("<=", 5)],
        "name": [("LIKE", "%Ann%")],
    }
    assert asked("SELECT name FROM people WHERE age NOT BETWEEN 2 AND 5") == {"age": [("<", 2), (">", 5)]}
    assert asked("SELECT name FROM people WHERE age IN (1, 2, 3) AND age <> 4") == {
        "age": [("=", 1), ("=", 2), ("=", 3), ("!=", 4)]
    }
    assert asked("SELECT name FROM people WHERE age IS NOT NULL OR name IS NULL") == {
        "age": [("IS NOT", None)],
        "name": [("IS", None)],
    }
    assert asked("SELECT name FROM people WHERE name NOT LIKE 'A%'") == {"name": [("NOT LIKE", "A%")]}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pet FROM pets JOIN people ON people.name = pets.owner",
        "SELECT pet FROM pets, people WHERE owner = name",
        "SELECT name FROM people WHERE name IN (SELECT owner FROM pets WHERE pet = 'cat')",
        "SELECT name FROM people WHERE name NOT IN (SELECT DISTINCT owner FROM pets)",
    ],
)
def test_joined_columns_are_known(sql: str) -> None:
    assert {column.name for column in Reference(sql, PEOPLE).joined} == {"name", "owner"}


def test_columns_that_may_be_null_are_known() -> None:
    def nullable(sql: str) -> set[str]:
        return {column.name for column in Reference(sql, PEOPLE).nullable}

    assert nullable("SELECT COUNT(age) FROM people WHERE name IS NULL") == {"age", "name"}
    assert nullable("SELECT COALESCE(age, 0), COUNT(*), COUNT(DISTINCT name) FROM people") == {"age"}


def test_literals() -> None:
    tokens = ("'it''s'", '"x"', "-3", "2.50", "1e3", ".5", "name", "[x]", '"T1"."x"', "x'ff'")
    assert [literal_of(token) for token in tokens] == ["it's", "x", -3, 2.5, 1000.0, 0.5, None, None, None, None]
