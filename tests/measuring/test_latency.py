"""Latency is what a user of the stream feels."""

from types import SimpleNamespace

import pytest

from helpers.errors import CourseError
from helpers.measuring.latency import latency


def completion(*steps):
    made = [SimpleNamespace(seconds=s, emitted=(0,) * n) for s, n in steps]
    ids = [0] * sum(n for _, n in steps)
    total = sum(s for s, _ in steps)
    return SimpleNamespace(steps=made, token_ids=ids, seconds=total, seconds_to_first_token=steps[0][0])


def test_latency_is_what_a_user_of_the_stream_feels():
    felt = latency([completion((0.1, 1), (0.02, 1), (0.03, 1)), completion((0.2, 1), (0.04, 2))])
    assert felt.ttft_ms == pytest.approx(150) and felt.n == 2
    assert felt.itl_mean_ms == pytest.approx((20 + 30 + 40 + 0) / 4)
    assert felt.itl_p50_ms == pytest.approx(25) and felt.itl_p99_ms <= 40
    assert felt.tokens_per_second == pytest.approx(6 / 0.39)
    with pytest.raises(CourseError, match="second token"):
        latency([completion((0.1, 1))])
