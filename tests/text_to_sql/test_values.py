"""Values: what training may see and what it may not, numbers as people choose them."""

import json
import random

import pytest

from helpers.text_to_sql.domains import DATA, Column
from helpers.text_to_sql.values import SIZES, draw_date, draw_number, draw_text, pool

RNG = random.Random(3)


def draws(column, times=400, **options):
    return [draw_number(RNG, column, **options) for _ in range(times)]


def shared(values, others):
    return set(values) & set(others)


@pytest.mark.parametrize("kind", SIZES)
def test_pools_of_training_and_of_the_others_are_disjoint(kind):
    seen, held_out = pool(kind, True), pool(kind, False)
    assert not shared(seen, held_out)
    assert len(held_out) > 20 and len(seen) > 3 * len(held_out)
    whole = json.loads((DATA / "pools.json").read_text(encoding="utf-8"))[kind]
    assert shared(whole, held_out), "a pool that isn't divided is caught"


def test_text_comes_from_the_list_or_from_the_pool():
    assert draw_text(RNG, Column("colour", values=("red",)), True) == "red"
    city = Column("city", values="city")
    assert all(draw_text(RNG, city, False) in pool("city", False) for _ in range(50))


def test_numbers_keep_to_their_range_and_step():
    price = Column("price", "REAL", (5.0, 80.0))
    assert all(5 <= value <= 80 for value in draws(price))
    salary = Column("salary", "INTEGER", (20000, 90000), step=500)
    assert all(20000 <= value <= 90000 and value % 500 == 0 and isinstance(value, int) for value in draws(salary))


def test_most_large_numbers_are_round():
    crowd = Column("crowd", "INTEGER", (1000, 90000))
    assert sum(value % 100 == 0 for value in draws(crowd)) > 250
    assert sum(value % 100 == 0 for value in draws(crowd, rounded=False)) < 50


def test_a_whole_number_is_written_without_a_fraction():
    values = draws(Column("weight", "REAL", (1, 9), step=0.5))
    assert 5 in values and not any(str(value).endswith(".0") for value in values)


def test_a_year_is_never_rounded():
    year = Column("year", "INTEGER", (1931, 1939))
    assert year.is_year and set(draws(year)) == set(range(1931, 1940))


def test_dates_lie_between_the_first_and_the_last():
    column = Column("day", "DATE", ("2020-02-27", "2020-03-01"))
    assert {str(draw_date(RNG, column)) for _ in range(100)} == {"2020-02-27", "2020-02-28", "2020-02-29", "2020-03-01"}
