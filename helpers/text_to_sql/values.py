"""Values of a column: names, places and dates, numbers as people choose them, and rare words that must be copied.

The pools are Faker's (https://faker.readthedocs.io), drawn once into pools.json by
`python -m helpers.text_to_sql.values`; every fifth value is held out of training.
"""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from functools import cache

from helpers.text_to_sql.domains import DATA, Column

LOCALES = "en_US en_GB de_DE fr_FR es_ES it_IT nl_NL sv_SE pl_PL pt_BR tr_TR cs_CZ hu_HU en_IN en_NZ".split()
CITIES = """Oslo Bergen Stockholm Copenhagen Helsinki Reykjavik Dublin Cork London Leeds Glasgow Cardiff Paris Lyon
Marseille Nantes Madrid Seville Valencia Lisbon Porto Rome Milan Turin Naples Athens Vienna Graz Salzburg Zurich Basel
Geneva Berlin Hamburg Munich Leipzig Cologne Amsterdam Utrecht Brussels Ghent Antwerp Prague Brno Warsaw Gdansk
Budapest Zagreb Split Belgrade Sofia Bucharest Istanbul Ankara Cairo Tunis Casablanca Dakar Accra Lagos Nairobi
Kampala Durban Mumbai Delhi Chennai Kolkata Lahore Dhaka Colombo Bangkok Hanoi Jakarta Manila Osaka Kyoto Tokyo Nagoya
Sapporo Seoul Busan Taipei Shanghai Beijing Sydney Perth Melbourne Hobart Auckland Wellington Toronto Montreal Ottawa
Calgary Vancouver Boston Chicago Denver Seattle Portland Austin Dallas Houston Miami Atlanta Detroit Phoenix Havana
Lima Quito Bogotá Caracas Santiago Montevideo Recife Salvador Curitiba""".split()
SIZES = {
    "person": 2400, "first_name": 800, "last_name": 900, "city": 300, "country": 150, "company": 900,
    "street": 700, "job": 400, "email": 400, "phone": 400,
}  # fmt: skip


@cache
def pool(kind: str, training: bool) -> tuple[str, ...]:
    """The values of a kind that training may see, or else the held-out fifth."""
    values = json.loads((DATA / "pools.json").read_text(encoding="utf-8"))[kind]
    return tuple(value for i, value in enumerate(values) if (i % 5 == 0) != training)


def draw_text(rng: random.Random, column: Column, training: bool) -> str:
    return rng.choice(pool(column.values, training) if isinstance(column.values, str) else column.values)


def draw_number(rng: random.Random, column: Column, rounded: bool = True) -> float:
    """A number in the column's range; `rounded` as people ask for it: 200 rather than 187."""
    low, high = column.values
    step = column.step or 0
    value = low + step * rng.randint(0, int((high - low) / step)) if step else rng.uniform(low, high)
    whole = column.type == "INTEGER"
    if column.is_year or (whole and high - low < 60):
        return round(value)
    if rounded and rng.random() < 0.75:
        shorter = _rounded(value, rng.choice((1, 2, 2)))
        value = shorter if low <= shorter <= high else value
    return round(value) if whole else tidy(round(value, 2 if step else rng.choice((1, 1, 2))))


def _rounded(value: float, digits: int) -> float:
    """To so many digits at the front, but to no fraction: 187 -> 190, 4.7 -> 5."""
    behind = len(str(int(abs(value)))) - digits
    return round(value, -behind) if behind > 0 else round(value)


def tidy(value: float) -> float:
    """30.0 is written 30."""
    return int(value) if value == int(value) else value


def draw_date(rng: random.Random, column: Column) -> date:
    first, last = (date.fromisoformat(day) for day in column.values)
    return first + timedelta(days=rng.randint(0, (last - first).days))


def make_pools(seed: int = 5) -> dict[str, list[str]]:
    """Every pool anew, from Faker."""
    from faker import Faker

    fakers = [Faker(locale) for locale in LOCALES]
    for faker in fakers:
        faker.seed_instance(seed)
    english = fakers[:2]
    draws = {
        "person": (fakers, lambda f: f"{f.first_name()} {f.last_name()}"),
        "first_name": (fakers, lambda f: f.first_name()),
        "last_name": (fakers, lambda f: f.last_name()),
        "city": (fakers, lambda f: f.city()),
        "country": (english, lambda f: f.country()),
        "company": (fakers, lambda f: f.company()),
        "street": (fakers, lambda f: f.street_name()),
        "job": (english, lambda f: f.job()),
        "email": (english, lambda f: f.email()),
        "phone": (english, lambda f: f.numerify("0## ### ####")),
    }
    pools = {kind: _distinct(*draws[kind], SIZES[kind]) for kind in SIZES}
    pools["city"] = sorted({*CITIES, *pools["city"]})
    return pools


def _distinct(fakers, draw, count: int) -> list[str]:
    values: dict[str, None] = {}
    for turn in range(40 * count):
        value = draw(fakers[turn % len(fakers)])
        if len(value) <= 28 and "(" not in value and value.isprintable():
            values[value] = None
        if len(values) == count:
            break
    return list(values)


if __name__ == "__main__":
    text = json.dumps(make_pools(), ensure_ascii=False, indent=0)
    (DATA / "pools.json").write_text(text + "\n", encoding="utf-8")
