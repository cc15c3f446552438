"""LLM.int8 is bitsandbytes': its codes to the bit, its products nearly; outliers don't take the others' codes."""

import copy

import bitsandbytes as bnb
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.errors import CourseError
from helpers.weights.quantization import llm_int8 as module
from helpers.weights.quantization.integer import absmax_codes, linear_bytes
from helpers.weights.quantization.llm_int8 import (
    Int8Linear,
    install,
    integer_product,
    llm_int8,
    outlier_columns,
    widen_codes,
)
from tests.tiny_models import tiny


def with_outliers(tokens=6, columns=64, seed=0):
    """Inputs of size 1, with two columns of 20 to 40 in every token."""
    torch.manual_seed(seed)
    x = torch.randn(tokens, columns).clamp(-4, 4)
    x[:, [3, 17]] = 20 + 20 * torch.rand(tokens, 2)
    return x


def relative(here, there):
    return ((here - there).norm() / there.norm()).item()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.booleans())
def test_codes_of_inputs_are_bitsandbytes_to_the_bit(seed, outliers):
    x = with_outliers(seed=seed).half()
    x = x if outliers else x.clamp(-5, 5)
    theirs, absmax, columns = bnb.functional.int8_vectorwise_quant(x.clone(), threshold=6.0)
    apart = outlier_columns(x)
    codes, scales = absmax_codes(x.masked_fill(apart, 0))
    assert torch.equal(codes, theirs) and apart.nonzero()[:, 0].tolist() == columns.tolist()
    torch.testing.assert_close(scales[:, 0] * 127, absmax, rtol=1e-6, atol=0)


@pytest.mark.parametrize("threshold", [6.0, 0.0])
def test_a_layer_is_bitsandbytes_layer(threshold):
    linear, x = nn.Linear(64, 48).half(), with_outliers().half()
    theirs = bnb.nn.Linear8bitLt(64, 48, has_fp16_weights=False, threshold=threshold)
    theirs.weight = bnb.nn.Int8Params(linear.weight.data.clone(), requires_grad=False).to("cpu")
    theirs.bias = nn.Parameter(linear.bias.detach().clone())
    ours = Int8Linear(linear, threshold or None)
    assert torch.equal(ours.codes, theirs.weight.CB)
    torch.testing.assert_close(ours.scales[:, 0] * 127, theirs.weight.SCB, rtol=1e-6, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-2, atol=1e-2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 900))
def test_products_of_bytes_are_exact(seed, tokens, columns):
    torch.manual_seed(seed)
    x, w = (torch.randint(-127, 128, (n, columns), dtype=torch.int8) for n in (tokens, 5))
    assert torch.equal(integer_product(x, w).long(), x.long() @ w.long().T)


def test_products_kept_in_a_byte_are_caught():
    x = torch.full((1, 4), 100, dtype=torch.int8)
    assert integer_product(x, x) != (x * x).sum(1).float()


def test_outliers_apart_keep_what_plain_w8a8_loses():
    linear, x = nn.Linear(64, 48), with_outliers()
    with torch.no_grad():
        there = linear(x)
        plain, apart = (relative(Int8Linear(linear, t)(x), there) for t in (None, 6.0))
        assert apart < 0.02 and apart < plain
        # what the small inputs add, which is what the outliers' scale drowns
        small = x.clone()
        small[:, [3, 17]] = 0
        fixed = (there - linear(small)).detach()
        plain, apart = (relative(Int8Linear(linear, t)(x) - fixed, there - fixed) for t in (None, 6.0))
        assert apart < 0.5 * plain


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: (x.abs() < 6).any(dim=0),  # the others apart
        lambda x: (x.abs() >= 60).any(dim=0),  # another threshold
    ],
)
def test_other_columns_apart_are_caught(mistake):
    x = with_outliers().half()
    _, _, columns = bnb.functional.int8_vectorwise_quant(x.clone(), threshold=6.0)
    assert mistake(x).nonzero()[:, 0].tolist() != columns.tolist()


def test_outliers_are_counted_by_size_not_by_sign():
    x = torch.zeros(2, 4)
    x[1, 2] = -7
    assert outlier_columns(x).tolist() == [False, False, True, False]


def test_columns_apart_are_not_counted_twice(monkeypatch):
    """The planted mistake: outliers are multiplied in 16 bits, and stay in the bytes as well."""
    linear, x = nn.Linear(64, 48), with_outliers()
    codes, scales = absmax_codes(linear.weight.detach())
    there = x @ linear.weight.detach().T
    assert relative(llm_int8(x, codes, scales), there) < 0.02
    monkeypatch.setattr(torch.Tensor, "masked_fill", lambda self, mask, value: self)
    assert relative(llm_int8(x, codes, scales), there) > 0.5


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
def test_a_model_keeps_its_head_and_says_nearly_the_same(kind):
    model = tiny(kind).float()
    ids, whole = torch.arange(12)[None], linear_bytes(model)
    with torch.no_grad():
        there = model(ids).logits
        errors = [relative(install(copy.deepcopy(model), t)(ids).logits, there) for t in (None, 6.0)]
    assert all(0 < error < 0.2 for error in errors)
    eight = install(model)
    assert type(eight.get_output_embeddings()) is nn.Linear
    assert linear_bytes(eight) < 0.3 * whole and not hasattr(module.Int8Linear, "dequantized")


def test_one_token_and_many_have_their_shapes():
    layer = Int8Linear(nn.Linear(8, 4))
    assert layer(torch.ones(8)).shape == (4,) and layer(torch.ones(2, 3, 8)).shape == (2, 3, 4)
    half = layer.bfloat16()
    assert half(torch.ones(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert (half.codes.dtype, half.scales.dtype) == (torch.int8, torch.float32)


def test_weights_that_float16_can_t_hold_are_refused():
    linear = nn.Linear(4, 4)
    with torch.no_grad():
        linear.weight[0, 0] = 1e6
    with pytest.raises(CourseError, match="NaN or infinite"):
        Int8Linear(linear)


def test_widened_codes_change_no_bit():
    model = install(tiny().float())
    ids = torch.tensor([[5, 17, 60, 8]])
    with torch.no_grad():
        before, after = model(ids).logits, widen_codes(copy.deepcopy(model))(ids).logits
    assert torch.equal(before, after)
