"""Answers in groups of similar confidence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import CourseError
from helpers.serving.calibration import Bin, calibration_error, reliability


def test_groups_by_hand():
    found = reliability([0.05, 0.95, 1.0, 0.52, 0.58], [False, True, False, True, True], 2)
    assert found == [Bin(pytest.approx(0.285), 0.5, 2), Bin(pytest.approx(0.8433333), pytest.approx(2 / 3), 3)]
    assert calibration_error(found) == pytest.approx((2 * 0.215 + 3 * (0.8433333 - 2 / 3)) / 5)
    with pytest.raises(CourseError, match="There is no answer"):
        calibration_error(reliability([], [], 3))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.integers(1, 20))
def test_nobody_is_lost(pairs, bins):
    found = reliability(*zip(*pairs, strict=True), bins)
    assert sum(one.count for one in found) == len(pairs) and len(found) == min(bins, len(pairs))
    assert max(one.count for one in found) - min(one.count for one in found) <= 1
    assert [one.confidence for one in found] == sorted(one.confidence for one in found)
    assert sum(one.right * one.count for one in found) == pytest.approx(sum(r for _, r in pairs))
    assert 0 <= calibration_error(found) <= 1
