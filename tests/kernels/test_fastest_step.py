"""The fastest step is the same function, leaves the model as it comes, and falls back where it is not written."""

import torch
from torch import nn

from helpers.decoding.generate import plain_greedy
from helpers.kernels.fastest_step import fastest_step, is_our_own, packed_copy, ways
from helpers.kernels.one_product import one_product
from helpers.kernels.packed_linear import PackedLinear
from tests.tiny_models import tiny

PROMPT = [5, 9, 33, 2, 71]


def test_every_way_writes_the_same_tokens_and_the_model_stays_as_it_comes():
    model = tiny().float()
    before = plain_greedy(model, PROMPT, 12)
    arms = ways(model, turns=0)
    assert list(arms) == ["transformers", "packed", "fused", "native"] and arms["transformers"] is model
    assert all(plain_greedy(arm, PROMPT, 12) == before for arm in arms.values())
    assert any(type(m) is nn.Linear for m in model.modules())
    assert not any(isinstance(m, PackedLinear) for m in model.modules())


def test_a_packed_copy_shares_the_weights():
    model = tiny().float()
    copied = packed_copy(model, turns=0)
    assert {id(p) for p in copied.parameters()} == {id(p) for p in model.parameters()}


def test_a_kind_without_a_fused_step_gets_packed_linears():
    model = tiny("falcon").float()
    step = fastest_step(model, turns=0)
    assert not is_our_own(step) and plain_greedy(step, PROMPT, 8) == plain_greedy(model, PROMPT, 8)
    assert list(ways(model, turns=0)) == ["transformers", "packed"]


def test_one_product_is_the_several():
    x, weights = torch.randn(3, 4, dtype=torch.float64), [torch.randn(n, 4, dtype=torch.float64) for n in (6, 2, 2)]
    for joined, weight in zip(one_product(x, weights), weights, strict=True):
        assert torch.allclose(joined, x @ weight.T)
