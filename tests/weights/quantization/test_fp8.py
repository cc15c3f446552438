"""Eight-bit weights are the library's to the bit, as far off as the format says; scales save the small ones."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchao.quantization import Float8WeightOnlyConfig, quantize_

from helpers.errors import CourseError
from helpers.weights.quantization import fp8
from helpers.weights.quantization.fp8 import Fp8Linear, dequantize, install, linear_bytes, quantize, scale_of
from tests.tiny_models import tiny


def matrix(rows=24, columns=40, size=0.02, seed=0):
    torch.manual_seed(seed)
    return size * torch.randn(rows, columns)


def test_it_is_torchao_s_to_the_bit():
    linear = nn.Linear(40, 24, bias=False)
    theirs = nn.Sequential(copy.deepcopy(linear))
    quantize_(theirs, Float8WeightOnlyConfig())
    ours = Fp8Linear(linear)
    assert torch.equal(ours.q.float(), theirs[0].weight.qdata.float())
    assert torch.equal(ours.scale, theirs[0].weight.scale)
    x = torch.randn(3, 40)
    torch.testing.assert_close(ours(x), theirs(x))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.floats(-20, 20), st.booleans())
def test_the_error_is_the_format_s_whatever_the_size(seed, power, per_channel):
    weight = matrix(size=2.0**power, seed=seed)
    scale = scale_of(weight, per_channel)
    error = (dequantize(quantize(weight, scale), scale) - weight).abs()
    step = torch.maximum(weight.abs() * 2**-4, scale * 2**-10)  # half a step of a 3-bit mantissa, or of the subnormals
    assert (error <= step * 1.001).all()


def test_without_a_scale_small_weights_are_lost():
    weight, one = matrix(size=0.001), torch.ones(1, 1)
    lost = (dequantize(quantize(weight, one), one) == 0).float().mean()
    kept = (dequantize(quantize(weight, scale_of(weight)), scale_of(weight)) == 0).float().mean()
    assert lost > 0.5 > 0.01 > kept


def test_a_scale_a_channel_keeps_what_a_large_neighbour_would_drown():
    weight = matrix()
    weight[0] *= 1e7
    quiet = slice(1, None)

    def error(per_channel):
        scale = scale_of(weight, per_channel)
        return ((dequantize(quantize(weight, scale), scale) - weight)[quiet].norm() / weight[quiet].norm()).item()

    assert error(True) < 0.05 < 0.5 < error(False)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
def test_a_model_keeps_its_head_and_says_nearly_the_same(kind):
    model = tiny(kind).float()
    eight = install(copy.deepcopy(model))
    assert type(eight.get_output_embeddings()) is nn.Linear
    assert any(isinstance(m, Fp8Linear) for m in eight.modules())
    assert linear_bytes(eight) < 0.3 * linear_bytes(model)  # one byte of four, and the scales
    ids = torch.arange(12)[None]
    with torch.no_grad():
        there, here = model(ids).logits, eight(ids).logits
    assert 0 < (there - here).norm() / there.norm() < 0.3


def test_products_of_eight_bit_numbers_are_near_those_of_wide_ones(monkeypatch):
    """The way that GPUs go, which a CPU can compute, too."""
    monkeypatch.setattr(fp8, "has_units", lambda device: True)
    linear = nn.Linear(64, 32)
    for per_channel in (True, False):
        layer, x = Fp8Linear(linear, per_channel), torch.randn(2, 5, 64)
        there, here = linear(x), layer(x)
        assert here.shape == there.shape and (there - here).norm() / there.norm() < 0.08


def test_a_scale_that_multiplies_where_it_should_divide_is_caught():
    weight = matrix()
    scale = scale_of(weight)
    wrong = dequantize(quantize(weight, 1 / scale), scale)
    assert (wrong - weight).norm() / weight.norm() > 0.5


def test_a_row_of_zeros_in_float16_stays_zeros():
    scale = scale_of(torch.zeros(1, 4, dtype=torch.float16))
    assert scale > 0 and torch.equal(quantize(torch.zeros(1, 4), scale).float(), torch.zeros(1, 4))


def test_another_dtype_leaves_bytes_and_scales_alone():
    ours = Fp8Linear(nn.Linear(8, 4)).half()
    assert (ours.q.dtype, ours.scale.dtype, ours.bias.dtype) == (fp8.E4M3, torch.float32, torch.float16)
    assert ours(torch.ones(2, 8, dtype=torch.float16)).isfinite().all()


def test_a_model_with_nothing_to_replace_says_so():
    model = install(tiny().float())
    with pytest.raises(CourseError, match=r"no nn\.Linear to replace"):
        install(model)
