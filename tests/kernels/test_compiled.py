"""The compiled step writes what the plain loop writes, one prompt after the other."""

import pytest

from helpers.errors import CourseError
from helpers.kernels import torch_compile
from helpers.kernels.compiled import CompiledGreedy
from tests.tiny_models import greedy, tiny


@pytest.mark.skipif(torch_compile.why_not() is not None, reason=str(torch_compile.why_not()))
def test_the_same_tokens_and_nothing_left_over_from_the_last_prompt():
    model = tiny()
    fast = CompiledGreedy(model, capacity=40)
    for prompt in ([5, 9, 2, 44], [7], [5, 9, 2, 44]):
        assert fast(prompt, 12) == greedy(model, prompt, 12)
    with pytest.raises(CourseError, match="40 places are full"):
        fast([3] * 38, 12)
    with pytest.raises(CourseError, match="make it larger"):
        fast([3] * 41)


def test_without_a_compiler_it_says_so_at_the_first_call(model, monkeypatch):
    monkeypatch.setattr(torch_compile, "why_not", lambda: "there is no C++ compiler: install one")
    with pytest.raises(CourseError, match="can't work here: there is no"):
        CompiledGreedy(model)([1])
