"""Equal things are equal, and each kind of difference is told in its own words."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from helpers.notebook.exercises.compare import difference

Pair = namedtuple("Pair", "a b")


@dataclass
class Record:
    name: str
    seconds: float


def namesake():
    """A class as a cell would define it once more."""

    @dataclass
    class Record:
        name: str
        seconds: float
        more: int = 0

    return Record


def t(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (3, 3.0),
        (0.1 + 0.2, 0.3),
        (1e-17, 0.0),
        (np.float32(2), 2),
        (np.int64(7), 7),
        (float("nan"), float("nan")),
        (float("inf"), float("inf")),
        (10**400, 10**400),
        (True, np.True_),
        (None, None),
        ("0 10", "0 10"),
        ({1, 2}, {2, 1}),
        (torch.bfloat16, torch.bfloat16),
        (t(1.0, float("nan")), t(1.0, float("nan"))),
        (t(1.0, 1e-9), t(1.0, 0.0)),  # the rounding of the 1
        (t(1.5, dtype=torch.bfloat16), t(1.5, dtype=torch.bfloat16)),
        (torch.ones(2, requires_grad=True), torch.ones(2)),
        (torch.empty(0, 3), torch.empty(0, 3)),
        (torch.tensor(3), torch.tensor(3)),
        (torch.ones(2).to_sparse(), torch.ones(2).to_sparse()),
        (np.array([1 + 1j]), np.array([1 + 1j])),
        (np.array(["a", "b"]), np.array(["a", "b"])),
        ([1, (2, {"a": t(1.0)})], [1, (2, {"a": t(1.0)})]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (Record("x", 0.3), Record("x", 0.1 + 0.2)),
        (Record, Record),
    ],
)
def test_equal(actual, expected):
    assert difference(actual, expected) is None


@pytest.mark.parametrize(
    ("actual", "expected", "says"),
    [
        (2, 4, "it is 2, it should be 4 (yours is 0.5 times that)"),
        (0.002, 2.0, "it is 0.002, it should be 2 (yours is 0.001 times that)"),
        (-3.0, 3, "it is -3, it should be 3 (yours is -1 times that)"),
        (0, 5, "it is 0, it should be 5"),
        (5, 0, "it is 5, it should be 0"),
        (1.00002, 1.00001, "it is 1.00002, it should be 1.00001"),
        (1.0000021, 1.0000001, "it is 1.0000021, it should be 1.0000001"),
        (14_000_000_001, 14_000_000_000, "it is 14000000001, it should be 14000000000"),
        (2.0**-149, 2.0**-126, "it is 1.4013e-45, it should be 1.17549e-38 (yours is 1.19e-07 times that)"),
        (float("nan"), 1.0, "it is nan, it should be 1"),
        (1.0, float("inf"), "it is 1, it should be inf"),
        (10**400, 1, "it is inf, it should be 1"),
        (True, 1, "it is a bool (True), it should be a number"),
        (1, True, "it is a number (1), it should be a bool"),
        (False, True, "it is False, it should be True"),
        ("2 ms", 2, "it is a string ('2 ms'), it should be a number"),
        (None, 2, "it is None, it should be a number"),
        (t(3.0), 3.0, "it is a tensor, it should be a number (.item() makes it one)"),
        (t(3.0, 4.0), 3.0, "it is a tensor, it should be a number"),
        ([1, 2], (1, 2), "it is a list, it should be a tuple"),
        ((x for x in "a"), ["a"], "it is a generator, it should be a list"),
        (len, 2, "it is a builtin_function_or_method, it should be a number"),
        ({1}, {2}, "it is {1}, it should be {2}"),
        (torch.float16, torch.bfloat16, "it is torch.float16, it should be torch.bfloat16"),
        ("0 110", "0 101", "from index 3 on it differs: it is '0 110', it should be '0 101'"),
        ("ab", "abc", "from index 2 on it differs: it is 'ab', it should be 'abc'"),
        (
            "x" * 99 + "y",
            "x" * 99 + "z",
            f"from index 99 on it differs: it is '{'x' * 30}y', it should be '{'x' * 30}z'",
        ),
        (torch.ones(2, 3), torch.ones(3, 2), "its shape is (2, 3), it should be (3, 2)"),
        (torch.ones(2), torch.ones(2).bfloat16(), "its dtype is torch.float32, it should be torch.bfloat16"),
        (np.ones(2), np.ones(2, np.float32), "its dtype is float64, it should be float32"),
        (torch.ones(2).to_sparse(), torch.ones(2), "its layout is torch.sparse_coo, it should be torch.strided"),
        (torch.ones(2, device="meta"), torch.ones(2), "its device is meta, it should be cpu"),
        (10**400, np.float32(1), "it is inf, it should be 1"),
        (np.ones(2), torch.ones(2), "it is a numpy array, it should be a tensor"),
        (
            torch.tensor([[1.0, 2.0], [6.0, 9.0]]),
            torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
            "at [1, 0], it is 6, it should be 3 (yours is 2 times that); 2 of 4 values differ",
        ),
        (
            t(1, 3, dtype=torch.int64),
            t(1, 2, dtype=torch.int64),
            "at [1], it is 3, it should be 2 (yours is 1.5 times that); 1 of 2 values differ",
        ),
        (t(1.0, float("nan")), t(1.0, 2.0), "at [1], it is nan, it should be 2; 1 of 2 values differ"),
        (
            t(float("inf"), 2.0),
            t(float("inf"), 4.0),
            "at [1], it is 2, it should be 4 (yours is 0.5 times that); 1 of 2 values differ",
        ),
        (torch.tensor(True), torch.tensor(False), "it is True, it should be False"),
        ([1, 2], [1, 2, 3], "its length is 2, it should be 3"),
        ([1, [2, 5]], [1, [2, 4]], "at [1][1], it is 5, it should be 4 (yours is 1.25 times that)"),
        ({"a": 1}, {"a": 1, "b": 2}, "it lacks the key 'b'"),
        ({"a": 1, "c": 2}, {"a": 1}, "it has the key 'c', which should not be there"),
        ({"a": [t(1.0)]}, {"a": [t(2.0)]}, "at ['a'][0][0], it is 1, it should be 2 (yours is 0.5 times that)"),
        (Record("x", 1.0), Record("x", 2.0), "at .seconds, it is 1, it should be 2 (yours is 0.5 times that)"),
        ([namesake()("x", 1.0)], [Record("x", 1.0)], "at [0], it has the field 'more', which should not be there"),
        ([Record("x", 1.0)], [namesake()("x", 1.0)], "at [0], it lacks the field 'more'"),
        ({"name": "x"}, Record("x", 1.0), "it is a dict, it should be a Record"),
        (Pair(1, 2), Pair(1, 3), "at [1], it is 2, it should be 3 (yours is 0.667 times that)"),
    ],
)
def test_a_difference_is_told_in_its_own_words(actual, expected, says):
    assert difference(actual, expected) == says


def test_the_tolerance_is_relative_and_0_means_exactly():
    assert difference(1.04, 1.0, 0.05) is None and difference(1.06, 1.0, 0.05)
    assert difference(t(1.04), t(1.0), 0.05) is None and difference(t(1.06), t(1.0), 0.05)
    assert difference(0.1 + 0.2, 0.3, 0) and difference(1e-17, 0.0, 0) and difference(t(1e-9), t(0.0), 0)
    assert difference(t(0.5, 1e30), t(0.5, 1e30), 0) is None
    assert difference(t(1 + 1e-12, dtype=torch.float64), t(1.0, dtype=torch.float64), 0)


def test_a_tensor_that_nothing_could_learn_through_is_told():
    weight = torch.nn.Parameter(torch.ones(2))
    assert difference(weight * 2, weight * 2) is None
    assert difference(weight * 2, torch.full((2,), 2.0)) is None  # more than is asked for
    for detached in ((weight * 2).detach(), torch.full((2,), 2.0)):
        assert "no gradient flows through it" in difference(detached, weight * 2)
