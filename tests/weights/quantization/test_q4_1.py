"""llama.cpp's four-bit grid is gguf's own, and a weight that has been through it stays as it is."""

import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from helpers.errors import CourseError
from helpers.weights.quantization.integer import round_to_nearest
from helpers.weights.quantization.q4_1 import through_q4_1

WEIGHT = torch.randn(6, 96, generator=torch.Generator().manual_seed(0))


def error(one, other):
    return ((one.float() - other.float()).norm() / other.float().norm()).item()


def test_it_is_ggufs_own():
    q4_1 = GGMLQuantizationType.Q4_1
    theirs = torch.from_numpy(dequantize(quantize(WEIGHT.numpy(), q4_1), q4_1))
    assert (through_q4_1(WEIGHT) != theirs).float().mean() < 0.01  # a tie may fall the other way
    assert error(through_q4_1(WEIGHT), theirs) < 0.01


def test_the_same_grid_again_costs_nothing_and_another_does():
    once = through_q4_1(WEIGHT).bfloat16()  # as the base is kept
    assert error(through_q4_1(once), once) < 0.006  # a 512th, bfloat16's
    assert error(round_to_nearest(once, 4, 32), once) > 0.05
    shifted = through_q4_1(once.roll(16, -1)).roll(-16, -1)
    assert error(shifted, once) > 0.03


def test_dtype_and_shape_stay_and_equal_blocks_too():
    same = torch.full((2, 32), 0.5, dtype=torch.bfloat16)
    assert torch.equal(through_q4_1(same), same)
    assert torch.equal(through_q4_1(torch.zeros(1, 64)), torch.zeros(1, 64))


def test_blocks_have_to_divide_a_row():
    with pytest.raises(CourseError, match="Groups of 32 don't divide rows of 48"):
        through_q4_1(torch.ones(2, 48))
