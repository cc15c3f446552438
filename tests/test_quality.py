"""Intervals of shares."""

import pytest

from helpers.quality import wilson


def test_wilson_is_the_published_interval():
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I, method 3
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_the_interval_stays_within_0_and_1():
    assert wilson(60, 60)[1] == pytest.approx(1.0) and 0.9 < wilson(60, 60)[0] < 1
