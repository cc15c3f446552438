"""Emulated float16 is close to the real one, rounds both ways, and leaves no trace; autocast is seen through."""

import copy

import pytest
import torch
from torch import nn

from helpers.weights.precision.autocast import cast_bytes, under_autocast
from helpers.weights.precision.emulation import RoundBothWays, emulated
from tests.tiny_models import tiny

IDS = torch.tensor([[5, 9, 13, 2, 40]])


@torch.no_grad()
def test_emulated_float16_is_as_far_from_float32_as_the_real_one():
    model = tiny().float()
    exact, real = model(IDS).logits, copy.deepcopy(model).half()(IDS).logits.float()
    with emulated(model, torch.float16):
        close = model(IDS).logits
    assert (close - real).abs().max() < 2 * (exact - real).abs().max() and not torch.equal(close, exact)
    assert torch.equal(model(IDS).logits, exact)


def test_the_model_comes_back_even_after_an_error():
    model = tiny().float()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyError), emulated(model, torch.float16):
        assert not torch.equal(model.lm_head.weight, before["lm_head.weight"])
        raise KeyError
    assert all(torch.equal(a, before[n]) for n, a in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_gradients_are_rounded_on_their_way_back():
    x = torch.full((2,), 1.0, requires_grad=True)
    (RoundBothWays.apply(x, torch.float16) * torch.tensor([1e-9, 1e-3])).sum().backward()
    assert x.grad[0] == 0 and x.grad[1] == torch.tensor(1e-3).half()
    y = torch.full((2,), 1.0 + 2**-12, requires_grad=True)
    assert torch.equal(RoundBothWays.apply(y, torch.float16), torch.ones(2))


def test_a_forward_only_hook_would_let_small_gradients_live():
    """The mistake that the autograd function is there against."""
    x = torch.full((1,), 1.0, requires_grad=True)
    (x + (x.half().float() - x).detach()).mul(1e-9).sum().backward()
    assert x.grad != 0


def test_autocast_casts_every_weight_at_every_call():
    model = nn.Sequential(nn.Linear(128, 256, bias=False), nn.Linear(256, 128, bias=False))
    model.device = torch.device("cpu")
    wrapped = under_autocast(model, torch.bfloat16)
    x = torch.randn(1, 128)
    weights = sum(p.numel() for p in model.parameters())
    assert [cast_bytes(lambda: wrapped(x)) for _ in range(2)] == [2 * weights] * 2
    half = copy.deepcopy(model).bfloat16()
    assert cast_bytes(lambda: model(x)) == 0 == cast_bytes(lambda: half(x.bfloat16()))
    assert wrapped(x).dtype == torch.bfloat16 and model(x).dtype == torch.float32
    assert wrapped[0].weight is model[0].weight
