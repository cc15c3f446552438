"""A model of half precision in float32: the logits of its float32 copy, in every form that the course gives models."""

import pytest
import torch
from torch import nn

from helpers.decoding.in_float32 import InFloat32
from helpers.kernels.fused_llama import FusedLlama
from helpers.kernels.packed_linear import PackedLinear, usable_variants
from tests.tiny_models import KINDS, tiny

IDS = torch.tensor([[5, 9, 2, 44, 3]])


@torch.inference_mode()
def logits_in_float32(model):
    with InFloat32():
        return model(IDS, use_cache=False).logits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_a_float32_copy_and_the_model_stays_as_it_is(kind, dtype):
    model = tiny(kind).to(dtype)
    logits, rounded = logits_in_float32(model), model(IDS, use_cache=False).logits
    assert logits.dtype == torch.float32 and {p.dtype for p in model.parameters()} == {dtype} == {rounded.dtype}
    wanted = model.float()(IDS, use_cache=False).logits
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)
    assert (rounded - wanted).abs().max() > 100 * (logits - wanted).abs().max()


@torch.no_grad()
def test_packed_weights_are_unpacked():
    linear = nn.Linear(64, 96, dtype=torch.bfloat16)
    if "packed" not in usable_variants(linear):
        pytest.skip("oneDNN has no packed weights here")
    packed, x = PackedLinear(linear, ["packed"] * 7), torch.randn(3, 64, dtype=torch.bfloat16)
    with InFloat32():
        y = packed(x)
    torch.testing.assert_close(y, linear.float()(x.float()), atol=1e-5, rtol=1e-5)


def test_the_fused_step_is_the_same_but_for_its_table_of_positions():
    model = tiny().bfloat16()
    logits = logits_in_float32(FusedLlama(model))
    torch.testing.assert_close(logits, logits_in_float32(model), atol=0.05, rtol=0.05)  # the table is of bfloat16
    assert logits.dtype == torch.float32


def test_what_is_written_into_a_tensor_arrives_there():
    kept = torch.zeros(4, dtype=torch.bfloat16)
    with InFloat32():
        kept[1:3] = torch.ones(2, dtype=torch.bfloat16)
        kept.add_(1)
        made = torch.zeros(2, dtype=torch.bfloat16) + kept[:2].to(torch.float16)
    assert kept.dtype == torch.bfloat16 and kept.tolist() == [1, 2, 2, 1]
    assert made.dtype == torch.float32 and made.tolist() == [1, 2]
