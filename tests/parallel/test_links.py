"""Times of collectives: the formulas at their ends, and constants that are found again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import CourseError
from helpers.parallel.links import Link, fit_link


def test_two_ranks_send_half_of_the_data_twice():
    link = Link(latency=1e-5, bandwidth=1e9)
    assert link.all_reduce(1e6, 2) == pytest.approx(2 * (1e-5 + 0.5e6 / 1e9))
    assert link.all_gather(1e6, 2) == pytest.approx(1e-5 + 0.5e6 / 1e9)
    assert link.all_reduce(1e6, 1) == 0


def test_with_many_ranks_an_all_reduce_sends_the_data_twice():
    assert Link(0, 1e9).all_reduce(1e9, 1000) == pytest.approx(2, rel=2e-3)


@given(st.floats(1e-7, 1e-2), st.floats(1e6, 1e12), st.integers(2, 16))
def test_the_constants_are_found_again(latency, bandwidth, ranks):
    link = Link(latency, bandwidth)
    sizes = [64, 4096, round(latency * bandwidth) + 8192, 10 * round(latency * bandwidth) + 2**22]
    found = fit_link([(size, ranks, link.all_reduce(size, ranks)) for size in sizes])
    assert found.latency == pytest.approx(latency, rel=1e-3) and found.bandwidth == pytest.approx(bandwidth, rel=1e-3)


def test_what_cannot_be_seen_is_left_out():
    only_latency = fit_link([(8, 2, 1.0), (16, 2, 1.0)])
    assert only_latency.latency == pytest.approx(0.5, rel=0.01)
    shrinking = fit_link([(8, 2, 1.0), (10_000, 2, 0.5)])
    assert shrinking.latency >= 0 and shrinking.bandwidth == float("inf")
    with pytest.raises(CourseError, match="two sizes at least"):
        fit_link([(8, 2, 1.0), (8, 2, 1.1)])
