"""The published check values, and refusals."""

import pytest

from helpers.cloud.prices import Prices, blended_price, throughput_of
from helpers.errors import CourseError


def test_the_published_values():
    assert blended_price(63.296, 2400) == pytest.approx(1.83, abs=0.005)
    assert blended_price(63.296, 1200) == pytest.approx(3.66, abs=0.005)
    assert blended_price(63.296, 2400, discount=0.5) == pytest.approx(1.83 / 2, abs=0.005)
    assert throughput_of(16, 0.008) == 2000.0
    assert blended_price(3.6, 1000, 0.0) == pytest.approx(1.0)  # a dollar buys 1000 s, and a million tokens


def test_prices_are_dated_and_missing_ones_named():
    prices = Prices.read()
    assert prices.of("ml.g5.2xlarge") == 1.515 and prices.date.startswith("2026")
    with pytest.raises(CourseError, match=r"There is no price of ml\.x1 from"):
        prices.of("ml.x1")


@pytest.mark.parametrize("wrong", [dict(tokens_per_second=0), dict(tokens_per_second=1, discount=2)])
def test_what_makes_no_price_is_refused(wrong):
    with pytest.raises(CourseError, match="A price needs"):
        blended_price(1.0, **wrong)


@pytest.mark.parametrize("text", ["[]", "{}", '{"date": "2026", "per_hour": {"ml.g5": "much"}}', "no JSON"])
def test_a_list_of_prices_that_is_none(tmp_path, text):
    (tmp_path / "prices.json").write_text(text)
    with pytest.raises(CourseError, match="holds no prices"):
        Prices.read(tmp_path / "prices.json")
