"""The faster ways to train: the same losses and gradients as the library's, and the same model outside of training."""

import copy

import pytest
import torch
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.kernels import torch_compile
from helpers.training import fast_layers
from helpers.training.completions import IGNORED, Encoded
from helpers.training.fast_layers import attention_by_products, speed_up
from helpers.training.packing import collate, tree_of
from tests.tiny_models import tiny


def batch_of_trees():
    groups = [
        [Encoded([5, 6, 7, *own], [IGNORED] * 3 + own) for own in ([8, 9], [4, 3, 2])],
        [Encoded([9, 8], [-100, 8])],
    ]
    return collate([[tree_of(group) for group in groups], [tree_of(groups[1])]], 0, 12)


def gradients(model, batch):
    model.zero_grad()
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = model.train()(**inputs, use_cache=False).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return tiny("llama")


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_losses_and_gradients_are_the_library_s(model, compiled):
    fast = copy.deepcopy(model)
    speed_up(fast, compiled)
    batch = batch_of_trees()
    (loss, wanted), (same, made) = gradients(model, batch), gradients(fast, batch)
    torch.testing.assert_close(same, loss)
    assert wanted.keys() == made.keys() and len(wanted) > 10
    for name in wanted:
        torch.testing.assert_close(made[name], wanted[name], msg=name)


def test_a_mask_that_is_passed_over_would_be_seen(model, monkeypatch):
    fast = copy.deepcopy(model)
    speed_up(fast, False)
    batch = batch_of_trees()
    seen = gradients(fast, batch)[0]
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"]).tril()
    assert abs(gradients(fast, batch)[0] - seen) > 1e-4


def test_outside_of_training_nothing_changes(model):
    fast = copy.deepcopy(model).eval()
    speed_up(fast, False)
    ids = torch.tensor([[1, 5, 6, 7], [0, 0, 5, 6]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    options = dict(attention_mask=mask, max_new_tokens=6, do_sample=False)
    assert torch.equal(model.eval().generate(ids, **options), fast.generate(ids, **options))


def test_heads_that_share_keys_are_the_right_ones():
    query, key, value = torch.randn(2, 6, 5, 8), torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    mask = torch.rand(2, 1, 5, 5) < 0.5
    mask |= torch.eye(5, dtype=torch.bool)
    module = torch.nn.Module().train()
    out, _ = attention_by_products(module, query, key, value, mask, scaling=0.3)
    wanted = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(out, wanted.transpose(1, 2))
    wrong, _ = attention_by_products(module, query, key.roll(1, 1), value, mask, scaling=0.3)
    assert (wrong - wanted.transpose(1, 2)).abs().max() > 0.01


def test_without_a_compiler_one_sentence_says_so(model, monkeypatch):
    monkeypatch.setattr(torch_compile, "why_not", lambda: "there is no C++ compiler")
    with pytest.raises(CourseError, match="there is no C"):
        speed_up(model, True)


def test_other_architectures_keep_the_library_s_attention():
    model = tiny("falcon")
    before = model.config._attn_implementation
    speed_up(model, False)
    assert model.config._attn_implementation == before != fast_layers.NAME
