"""NF4 from scratch is bitsandbytes' to the bit: levels, codes, scales, and the scales' own codes."""

import bitsandbytes.functional as bnb
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.weights.quantization.integer import linear_bytes, round_to_nearest, to_dense
from helpers.weights.quantization.nf4_codes import (
    LEVELS,
    Nf4Linear,
    double_quantize,
    dynamic_levels,
    from_double,
    from_nf4,
    install,
    nf4_codes,
)
from tests.tiny_models import tiny


def matrix(rows=128, columns=256, size=0.02, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return (size * torch.randn(rows, columns)).to(dtype)


def packed(codes):
    return (codes.flatten()[::2] << 4 | codes.flatten()[1::2])[:, None]


def test_the_levels_are_the_quantiles_that_the_library_has_by_heart():
    assert torch.equal(LEVELS, bnb.get_4bit_type("nf4", device="cpu"))


def test_the_levels_of_scales_are_the_library_s():
    theirs = bnb.create_dynamic_map()
    theirs[0] = -1
    assert torch.equal(dynamic_levels(), theirs)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(-10, 6),
    st.sampled_from([64, 128]),
    st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_codes_and_scales_are_bitsandbytes_to_the_bit(seed, power, block, dtype):
    weight = matrix(32, 256, 2.0**power, seed, getattr(torch, dtype))
    theirs, state = bnb.quantize_4bit(weight, blocksize=block, quant_type="nf4")
    codes, absmax = nf4_codes(weight, block)
    assert torch.equal(packed(codes), theirs) and torch.equal(absmax, state.absmax)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999))
def test_the_scales_own_codes_are_bitsandbytes_but_on_a_border(seed):
    weight = matrix(seed=seed, size=0.02) * torch.rand(128, 1)
    theirs, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    codes, absmax = nf4_codes(weight)
    scale_codes, largest, mean = double_quantize(absmax)
    other = scale_codes != state.absmax
    assert other.float().mean() < 0.02
    shares, levels = (absmax - mean) / largest.repeat_interleave(256), dynamic_levels()
    middles = (levels[scale_codes.int()] + levels[state.absmax.int()]) / 2
    assert ((shares - middles)[other].abs() < 3e-5).all()  # there the library's CPU kernel isn't exact
    assert torch.equal(largest, state.state2.absmax) and torch.equal(mean, state.offset)
    ours = from_nf4(codes, from_double(scale_codes, largest, mean))
    same = ~other.repeat_interleave(64).reshape(ours.shape)
    torch.testing.assert_close(ours[same], bnb.dequantize_4bit(theirs, state)[same], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda w: nf4_codes(w.T.contiguous())[0].T,  # blocks down the columns
        lambda w: torch.round((w / w.abs().max() + 1) * 7.5).byte(),  # evenly spaced levels, one scale
        lambda w: 15 - nf4_codes(-w)[0],  # as if the levels were the same on both sides of zero
    ],
)
def test_other_blocks_or_levels_are_caught(mistake):
    weight = matrix()
    theirs, _ = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    assert not torch.equal(packed(mistake(weight)), theirs)


def test_the_other_order_in_a_byte_is_caught():
    codes, _ = nf4_codes(matrix())
    theirs, _ = bnb.quantize_4bit(matrix(), blocksize=64, quant_type="nf4")
    assert not torch.equal((codes.flatten()[1::2] << 4 | codes.flatten()[::2])[:, None], theirs)


def test_normal_weights_are_nearer_than_on_an_even_grid_and_use_all_codes():
    weight = matrix()
    codes, absmax = nf4_codes(weight)
    error = (from_nf4(codes, absmax) - weight).norm()
    assert error < 0.95 * (round_to_nearest(weight, 4, 64) - weight).norm()
    assert torch.bincount(codes.flatten(), minlength=16).min() > 0.01 * codes.numel()


def test_a_block_of_zeros_stays_zeros():
    codes, absmax = nf4_codes(torch.zeros(1, 64))
    assert torch.equal(from_nf4(codes, absmax), torch.zeros(1, 64))
    assert double_quantize(absmax)[0].isfinite().all()


def test_a_layer_stores_four_bits_and_an_eighth():
    linear = nn.Linear(256, 128)
    layer = Nf4Linear(linear)
    codes, absmax = nf4_codes(linear.weight)
    assert torch.equal(layer.codes, codes)
    rounded = from_nf4(codes, from_double(*double_quantize(absmax)))
    assert torch.equal(layer.dequantized(), rounded)
    x = torch.randn(2, 3, 256)
    torch.testing.assert_close(layer(x), F.linear(x, rounded, linear.bias))
    assert 4.125 < layer.stored_bits / linear.weight.numel() < 4.15
    half = layer.half()
    assert (half.stored.dtype, half.largest.dtype) == (torch.uint8, torch.float32)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
def test_a_model_keeps_its_head_and_says_nearly_the_same(kind):
    model = tiny(kind).float()
    ids, whole = torch.arange(12)[None], linear_bytes(model)
    with torch.no_grad():
        there = model(ids).logits
        here = install(model)(ids).logits
        assert 0 < (there - here).norm() / there.norm() < 0.5
        assert type(model.get_output_embeddings()) is nn.Linear and linear_bytes(model) / (whole / 2) < 0.29
        torch.testing.assert_close(to_dense(model)(ids).logits, here)


@pytest.mark.parametrize(
    "bad, message",
    [
        (lambda: nf4_codes(torch.ones(3, 50)), "Blocks of 64 don't divide 150 weights"),
        (lambda: nf4_codes(torch.ones(3, 51), 51), "Blocks of 51"),
        (lambda: Nf4Linear(nn.Linear(10, 3)), "take 64 or 32"),
        (lambda: nf4_codes(torch.full((1, 64), float("nan"))), "NaN or infinite"),
    ],
)
def test_bad_input_is_refused(bad, message):
    with pytest.raises(CourseError, match=message):
        bad()
