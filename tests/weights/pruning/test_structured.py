"""Heads and channels that are removed go from all matrices that they belong to, the least important ones first; what is
left is a smaller model that every path of the course runs."""

import copy

import pytest
import torch

from helpers import models
from helpers.decoding.generate import plain_greedy
from helpers.errors import CourseError
from helpers.kernels.fastest_step import is_our_own
from helpers.kernels.fused_llama import FusedLlama
from helpers.weights.precision.ranges import blocks_of
from helpers.weights.pruning import structured
from helpers.weights.pruning.structured import Importance, Plan, importance, kv_head_importance, plan, smaller
from tests.tiny_folders import target_and_draft
from tests.tiny_models import tiny

PAIRS = [([5, 17, 60], [8, 33]), ([2, 40], [7, 9, 4])]
KINDS = ["llama", "qwen2", "qwen3", "mistral"]
IDS = torch.tensor([[5, 17, 60, 8, 33, 9]])


def silenced(model, kv_heads, channels):
    """A copy that computes what a cut one should: in every layer these KV heads' part of o, and these channels' part of
    down, are 0."""
    model = copy.deepcopy(model)
    size = structured.head_dim_of(model)
    group = model.config.num_attention_heads // model.config.num_key_value_heads
    with torch.no_grad():
        for block in blocks_of(model):
            for head in kv_heads:
                block.self_attn.o_proj.weight[:, head * group * size : (head + 1) * group * size] = 0
            block.mlp.down_proj.weight[:, channels] = 0
    return model


def matters(model, kv_heads, channels):
    """An importance by which just these go."""
    config = model.config
    heads = torch.ones(config.num_hidden_layers, config.num_key_value_heads)
    all_channels = torch.ones(config.num_hidden_layers, config.intermediate_size)
    heads[:, torch.tensor(kv_heads, dtype=torch.long)] = 0
    all_channels[:, torch.tensor(channels, dtype=torch.long)] = 0
    return Importance(heads, all_channels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gone", [0, 1])
def test_a_smaller_model_computes_what_is_left(kind, gone):
    model, channels = tiny(kind), [0, 3, 50, 95]
    small = smaller(model, matters(model, [gone], channels), Plan(1, 92, 0.0))
    assert small.config.num_attention_heads == 2 and small.config.intermediate_size == 92
    with torch.no_grad():
        wanted, got = silenced(model, [gone], channels)(IDS).logits, small(IDS).logits
    torch.testing.assert_close(got, wanted)
    assert (small(IDS).logits - model(IDS).logits).abs().max() > 1e-3


def test_a_model_is_left_as_it_was():
    model = tiny()
    before = {name: p.clone() for name, p in model.named_parameters()}
    smaller(model, matters(model, [0], [1]), Plan(1, 64, 0.0))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert model.config.num_attention_heads == 4 and not any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_the_fused_step_runs_it(kind):
    model = tiny(kind)
    if kind == "mistral":
        model.config.sliding_window = None
    small = smaller(model, matters(model, [0], [1, 2, 3, 4]), Plan(1, 92, 0.0))
    fused = FusedLlama(small)
    assert is_our_own(fused)
    with torch.no_grad():
        # transformers' norms compute in float32, also in a float64 model
        torch.testing.assert_close(fused(IDS).logits, small(IDS).logits, rtol=0, atol=5e-6)
    assert plain_greedy(fused, [5, 17, 60], 8) == plain_greedy(small, [5, 17, 60], 8)


def loss_without(model, pairs):
    with torch.no_grad():
        return sum(structured._loss(model, *pair).item() for pair in pairs)


def test_gradients_are_those_of_the_loss():
    model = tiny()
    weights = [structured._linears(block)[0].weight for block in blocks_of(model)]
    (first, *_) = structured._gradients(model, PAIRS, weights)
    step, (row, column) = 1e-3, (3, 7)  # norms and the loss compute in float32
    losses = []
    for sign in (1, -1):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            structured._linears(blocks_of(moved)[0])[0].weight[row, column] += sign * step
        losses.append(loss_without(moved, PAIRS))
    assert first[row, column].item() == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-2, abs=1e-6)


def test_importance_counts_all_weights_of_a_group():
    model = tiny()
    by_gradients = importance(model, PAIRS)
    assert by_gradients.kv_heads.shape == (2, 2) and by_gradients.channels.shape == (2, 96)
    block, size = blocks_of(model)[1], structured.head_dim_of(model)
    linears = structured._linears(block)
    gradients = structured._gradients(model, PAIRS, [linear.weight for linear in linears])
    q, k, v, o, gate, up, down = ((m.weight * g).abs() for m, g in zip(linears, gradients))
    rows, wide = slice(size, 2 * size), slice(2 * size, 4 * size)  # of KV head 1, which heads 2 and 3 share
    head = q[wide].sum() + k[rows].sum() + v[rows].sum() + o[:, wide].sum()
    assert by_gradients.kv_heads[1, 1].item() == pytest.approx(head.item(), rel=1e-5)
    channel = gate[7].sum() + up[7].sum() + down[:, 7].sum()
    assert by_gradients.channels[1, 7].item() == pytest.approx(channel.item(), rel=1e-5)
    assert not any(p.grad is not None for p in model.parameters())


def heads_taken_for_strided(weights, gradients, head_dim):
    """The mistake: heads 0 and 2 share the first KV head, as in another layout."""
    q, k, v, o = map(structured.taylor, weights, gradients)
    kv_heads = len(k) // head_dim
    wide = (q.sum(1) + o.sum(0)).view(-1, kv_heads, head_dim).sum((0, 2))
    return wide + k.sum(1).view(kv_heads, -1).sum(1) + v.sum(1).view(kv_heads, -1).sum(1)


def test_another_layout_of_heads_is_seen():
    model = tiny()
    right, wrong = importance(model, PAIRS), importance(model, PAIRS, heads_taken_for_strided)
    assert not torch.allclose(right.kv_heads, wrong.kv_heads)
    torch.testing.assert_close(right.kv_heads.sum(1), wrong.kv_heads.sum(1))


def test_half_precision_is_summed_in_float32():
    weights = [torch.full((4, 300), 0.1, dtype=torch.bfloat16) for _ in range(3)] + [torch.ones(300, 4).bfloat16()]
    gradients = [torch.full_like(weight, 0.01) for weight in weights]
    by_gradients = kv_head_importance(weights, gradients, 2)
    assert by_gradients.dtype == torch.float32 and by_gradients.tolist() == pytest.approx([7.8, 7.8], rel=1e-2)


def weights_in_layers(model):
    return sum(linear.weight.numel() for block in blocks_of(model) for linear in structured._linears(block))


@pytest.mark.parametrize("share", [0.15, 0.3, 0.5])
@pytest.mark.parametrize("heads", [True, False])
def test_a_plan_removes_what_it_says(share, heads):
    model = models.shape_only("llama-50m", device="meta")
    stays = plan(model, share, heads=heads)
    assert stays.removed == pytest.approx(share, abs=0.01) and stays.channels % 32 == 0
    assert stays.kv_heads == (4 - round(4 * share) if heads else 4)
    tiny_one = tiny()
    stays = plan(tiny_one, share, heads=heads, multiple=4)
    small = smaller(tiny_one, matters(tiny_one, [], []), stays)
    assert weights_in_layers(small) / weights_in_layers(tiny_one) == pytest.approx(1 - stays.removed)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.999])
def test_a_share_that_can_not_be_removed_is_refused(share):
    with pytest.raises(CourseError, match="can't be removed"):
        plan(tiny(), share)


def test_it_is_saved_and_loaded_as_any_model(tmp_path):
    folder = target_and_draft(tmp_path) / "target"
    model, tokenizer = models.load(folder)
    by_gradients = importance(model, [([5, 17, 60], [8, 33])])
    small = smaller(model, by_gradients, plan(model, 0.4, multiple=8))
    small.save_pretrained(tmp_path / "small"), tokenizer.save_pretrained(tmp_path / "small")
    again, _ = models.load(tmp_path / "small")
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, small(IDS).logits)
    assert weights_in_layers(again) < 0.7 * weights_in_layers(model)


def test_the_least_important_go_and_what_is_left_keeps_its_order():
    assert structured.most_important(torch.tensor([3.0, 9.0, 1.0, 5.0]), 2).tolist() == [1, 3]
    assert structured.most_important(torch.tensor([9.0, 1.0, 5.0]), 2).tolist() == [0, 2]
    assert structured.places(torch.tensor([0, 2]), 3).tolist() == [0, 1, 2, 6, 7, 8]


def test_removing_what_matters_least_costs_less_than_what_matters_most():
    model = tiny()
    by_gradients = importance(model, PAIRS)
    stays = Plan(2, 64, 0.0)
    upside_down = Importance(by_gradients.kv_heads, -by_gradients.channels)
    with torch.no_grad():
        least, most = (loss_without(smaller(model, by, stays), PAIRS) for by in (by_gradients, upside_down))
    before = loss_without(model, PAIRS)
    assert abs(least - before) < abs(most - before)


def test_a_model_built_otherwise_is_refused():
    with pytest.raises(CourseError, match="of the kind falcon can only lose single weights"):
        plan(tiny("falcon"), 0.3)
    with pytest.raises(CourseError, match="of the kind falcon"):
        importance(tiny("falcon"), PAIRS)


def test_importance_without_answers_is_refused():
    with pytest.raises(CourseError, match="one pair of prompt and answer"):
        importance(tiny(), [])
