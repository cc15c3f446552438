"""Small integers: bitsandbytes' codes to the bit, half a step of error at most, and the same numbers when stored."""

import copy
from dataclasses import replace

import bitsandbytes as bnb
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.weights.quantization import integer
from helpers.weights.quantization.integer import (
    IntegerLinear,
    absmax_codes,
    grid_of,
    grouped,
    install,
    linear_bytes,
    round_to_nearest,
    to_dense,
    weight_grid,
)
from tests.tiny_models import tiny

SEEDS, BITS = st.integers(0, 999), st.integers(2, 8)


def matrix(rows=24, columns=64, size=0.02, seed=0):
    torch.manual_seed(seed)
    return size * torch.randn(rows, columns)


def relative(x, y):
    return ((x - y).norm() / y.norm()).item()


def test_absmax_by_hand():
    codes, scales = absmax_codes(torch.tensor([[2.0, -4.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]), bits=4)
    assert codes.tolist() == [[4, -7, 2, 0], [0, 0, 0, 0]]  # 2 * 7 / 4 = 3.5: to the even neighbour
    torch.testing.assert_close(scales, torch.tensor([[4 / 7], [1.0]]))


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.integers(-10, 6))
def test_eight_bits_are_bitsandbytes_to_the_bit(seed, power):
    weight = matrix(size=2.0**power, seed=seed).half()
    weight[:, 1] = weight.abs().amax(1) / 2  # exactly between two codes
    theirs, absmax, _ = bnb.functional.int8_vectorwise_quant(weight.clone())
    codes, scales = absmax_codes(weight)
    assert torch.equal(codes, theirs)
    torch.testing.assert_close(scales[:, 0] * 127, absmax, rtol=1e-6, atol=0)
    assert torch.equal(weight_grid(weight, 8).encode(weight), theirs)


def test_a_scale_in_the_weights_own_dtype_is_caught():
    weight = matrix(rows=200).half()
    theirs, _, _ = bnb.functional.int8_vectorwise_quant(weight.clone())
    wrong = torch.round(weight * (127 / weight.abs().amax(1, keepdim=True))).to(torch.int8)  # all of it in float16
    assert not torch.equal(wrong, theirs)


@settings(max_examples=50, deadline=None)
@given(SEEDS, BITS, st.booleans(), st.sampled_from(["tensor", "channel"]), st.floats(-15, 15))
def test_no_number_moves_by_more_than_half_a_step(seed, bits, symmetric, group, power):
    weight = matrix(size=2.0**power, seed=seed) + 2.0**power * 0.02  # not centred
    grid = weight_grid(weight, bits, group, symmetric)
    error = (round_to_nearest(weight, bits, group, symmetric) - weight).abs()
    assert (error <= grid.scale * 0.5001).all()


def test_codes_use_the_whole_range_and_zero_stays_zero():
    weight = matrix() + 0.02
    weight[:, 0] = 0
    for bits in range(2, 9):
        for symmetric in (True, False):
            grid = grid_of(weight, bits, symmetric)
            codes = grid.encode(weight)
            assert codes.dtype == (torch.int8 if symmetric else torch.uint8)
            assert codes.max() == grid.highest and codes.min() >= grid.lowest
            assert (grid.round(weight)[:, 0] == 0).all()
    # all of one sign: a grid with a zero of its own spends no codes on the other one
    even, shifted = (round_to_nearest(weight.abs(), 4, "channel", symmetric) for symmetric in (True, False))
    assert relative(shifted, weight.abs()) < 0.7 * relative(even, weight.abs())


def test_a_zero_between_two_codes_is_caught():
    grid = grid_of(matrix() + 0.02, 4, symmetric=False)
    wrong = replace(grid, zero=grid.zero + 0.3)
    assert (wrong.round(torch.zeros(24, 1)) != 0).all()


@settings(max_examples=30, deadline=None)
@given(SEEDS, BITS, st.booleans(), st.sampled_from(["tensor", "channel", 16]))
def test_rounding_to_the_same_grid_again_changes_nothing(seed, bits, symmetric, group):
    weight = matrix(seed=seed)
    grid = weight_grid(weight, bits, group, symmetric)
    once = grid.round(grouped(weight, group))
    assert torch.equal(grid.round(once), once)


def test_smaller_groups_keep_more():
    weight = matrix(rows=32)
    weight[:, 5] *= 20  # an outlier in each row
    errors = [relative(round_to_nearest(weight, 4, group), weight) for group in ("tensor", "channel", 32, 16)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.7 * errors[0]


@pytest.mark.parametrize("group, shape", [("tensor", (1, 1536)), ("channel", (24, 64)), (16, (24, 4, 16))])
def test_groups(group, shape):
    weight = matrix()
    assert grouped(weight, group).shape == shape
    assert weight_grid(weight, 4, group).scale.shape == (*shape[:-1], 1)
    assert torch.equal(grouped(weight, group).reshape(weight.shape), weight)


@pytest.mark.parametrize(
    "bad, message",
    [
        (lambda: round_to_nearest(matrix(), 1), "2 to 8 bits"),
        (lambda: round_to_nearest(matrix(), 9), "2 to 8 bits"),
        (lambda: round_to_nearest(matrix(), 4, 48), r"don't divide rows of 64 weights.*such as 32"),
        (lambda: round_to_nearest(matrix(), 4, 0), "a number of weights"),
        (lambda: round_to_nearest(matrix(), 4, "row"), "a number of weights"),
        (lambda: round_to_nearest(matrix() * float("nan"), 4), "NaN or infinite"),
        (lambda: round_to_nearest(matrix().log(), 4, 16, False), "NaN or infinite"),
    ],
)
def test_bad_input_is_refused(bad, message):
    with pytest.raises(CourseError, match=message):
        bad()


@pytest.mark.parametrize("group", ["tensor", "channel", 16])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_a_layer_stores_what_rounding_gives(bits, symmetric, group):
    linear = nn.Linear(64, 24)
    layer = IntegerLinear.of(linear, bits, group, symmetric)
    rounded = round_to_nearest(linear.weight.detach(), bits, group, symmetric)
    assert torch.equal(layer.dequantized(), rounded)
    grid = weight_grid(linear.weight, bits, group, symmetric)
    codes = grid.encode(grouped(linear.weight, group)).reshape(24, 64)
    assert torch.equal(layer.integer_codes(), codes) and layer.integer_codes().dtype == codes.dtype
    x = torch.randn(2, 5, 64)
    torch.testing.assert_close(layer(x), F.linear(x, rounded, linear.bias))
    groups = 4 if group == 16 else 1
    assert layer.scales.shape == (24, groups)
    assert (layer.zero_points is None) == symmetric and (symmetric or layer.zero_points.shape == (24, groups))
    per_scale = (16 if group == 16 else 32) + (0 if symmetric else bits)
    assert layer.stored_bits == bits * 24 * 64 + per_scale * 24 * groups


def test_codes_are_made_for_the_scale_that_is_stored():
    weight = matrix(rows=64, columns=128)
    ours = relative(round_to_nearest(weight, 8, 16), weight)
    grid = grid_of(grouped(weight, 16), 8)
    codes = grid.encode(grouped(weight, 16))  # of the float32 scale, decoded with the bfloat16 one
    wrong = relative(grid.with_scale_in(torch.bfloat16).decode(codes).reshape(weight.shape), weight)
    assert ours < 0.98 * wrong


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 9), st.booleans())
def test_two_codes_to_a_byte_come_back(seed, columns, signed):
    torch.manual_seed(seed)
    codes = (
        torch.randint(-7, 8, (3, columns), dtype=torch.int8) if signed else torch.randint(0, 16, (3, columns)).byte()
    )
    stored = integer._packed(codes)
    assert stored.shape == (3, (columns + 1) // 2)
    assert torch.equal(integer._unpacked(stored, columns, codes.dtype), codes)


def test_halves_of_a_byte_in_the_wrong_order_are_caught():
    codes = torch.arange(16, dtype=torch.uint8).reshape(2, 8)
    stored = integer._packed(codes)
    swapped = stored << 4 | stored >> 4
    assert not torch.equal(integer._unpacked(swapped, 8, torch.uint8), codes)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
def test_a_model_keeps_its_head_and_says_nearly_the_same(kind):
    model = tiny(kind).float()
    eight = install(copy.deepcopy(model))
    assert type(eight.get_output_embeddings()) is nn.Linear
    assert any(isinstance(m, IntegerLinear) for m in eight.modules())
    ids = torch.arange(12)[None]
    with torch.no_grad():
        there, here = model(ids).logits, eight(ids).logits
        four = install(copy.deepcopy(model), 4)(ids).logits
        assert 0 < relative(here, there) < 0.3 * relative(four, there)
        torch.testing.assert_close(to_dense(eight)(ids).logits, here)
    assert not any(isinstance(m, IntegerLinear) for m in eight.modules())
    with pytest.raises(CourseError, match=r"no nn\.Linear to replace"):
        install(install(model))


class Model(nn.Module):
    """Two layers and a head, for counting bytes."""

    def __init__(self, make=lambda linear: linear):
        super().__init__()
        self.layers = nn.Sequential(make(nn.Linear(128, 256)), make(nn.Linear(256, 128)))
        self.head = nn.Linear(128, 1000)

    def get_output_embeddings(self):
        return self.head


def test_bytes_held():
    numbers = 2 * 128 * 256
    assert linear_bytes(Model()) == 4 * numbers
    eight = linear_bytes(Model(IntegerLinear.of))
    assert eight == numbers + 4 * (256 + 128) and eight / (2 * numbers) < 0.53
    four = linear_bytes(Model(lambda linear: IntegerLinear.of(linear, 4, 64)))
    assert four == numbers / 2 + 2 * numbers / 64 and four / (2 * numbers) < 0.29
    with_zeros = linear_bytes(Model(lambda linear: IntegerLinear.of(linear, 4, 64, symmetric=False)))
    assert with_zeros == four + numbers / 64


def test_bytes_of_bitsandbytes_layers_count_their_scales():
    def eight(linear):
        layer = bnb.nn.Linear8bitLt(linear.in_features, linear.out_features, has_fp16_weights=False)
        layer.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False).to("cpu")
        return layer

    assert linear_bytes(Model(eight)) == 2 * 128 * 256 + 4 * (256 + 128)


def test_another_dtype_leaves_codes_and_scales_alone():
    layer = IntegerLinear.of(nn.Linear(8, 4), 4, "channel", symmetric=False).half()
    assert [layer.stored.dtype, layer.scales.dtype, layer.zero_points.dtype, layer.bias.dtype] == [
        torch.uint8,
        torch.float32,
        torch.uint8,
        torch.float16,
    ]
    assert layer(torch.ones(2, 8, dtype=torch.float16)).dtype == torch.float16


def test_weights_of_any_dtype_are_measured_in_float32():
    weight = matrix().bfloat16()
    assert torch.equal(weight_grid(weight, 4).scale, weight_grid(weight.float(), 4).scale)
    assert round_to_nearest(weight, 4).dtype == torch.bfloat16
