"""The compiled step writes what the plain loop writes, one prompt after the other."""

import pytest

from helpers.errors import CourseError
from helpers.kernels.compiled import CompiledGreedy
from tests.tiny_models import greedy, tiny


def test_the_same_tokens_and_nothing_left_over_from_the_last_prompt():
    model = tiny()
    fast = CompiledGreedy(model, capacity=40)
    for prompt in ([5, 9, 2, 44], [7], [5, 9, 2, 44]):
        assert fast(prompt, 12) == greedy(model, prompt, 12)
    assert len(fast([3] * 38, 12)) == 2  # no more places
    with pytest.raises(CourseError, match="make it larger"):
        fast([3] * 41)
