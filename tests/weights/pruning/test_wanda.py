"""Wanda is the paper's: its figure by hand, each row its share, block by block on what pruned ones give, the same masks
when the function is rescaled; on every architecture."""

import copy
from functools import partial

import pytest
import torch

from helpers.errors import CourseError
from helpers.weights.pruning import wanda as module
from helpers.weights.pruning.magnitude import magnitude, magnitude_mask
from helpers.weights.pruning.sparsity import keep_best, zeros_by_row
from helpers.weights.pruning.wanda import wanda, wanda_mask, wanda_two_of_four
from helpers.weights.quantization.calibration import observe, observed_linears
from helpers.weights.quantization.rescaling import rescale_norm
from tests.tiny_models import tiny

PROMPTS = [[5, 17, 60, 8, 33, 9], [2, 40, 7], [11, 90, 3, 3, 58]]
TOY = torch.tensor([[4.0, 0.0, 1.0, -1.0], [3.0, -2.0, -1.0, -3.0], [-3.0, 1.0, 0.0, 2.0]])
NORMS = torch.tensor([1.0, 2.0, 8.0, 3.0])
HALF = partial(wanda_mask, sparsity=0.5)


def pruned(model, mask=HALF):
    return wanda(copy.deepcopy(model), PROMPTS, mask)


def masks(model):
    return {name: linear.weight != 0 for name, linear in observed_linears(model).items()}


def entries_that_differ(one, other):
    return sum(int((one[name] != other[name]).sum()) for name in one)


def test_the_papers_figure_by_hand():
    kept = wanda_mask(TOY, NORMS**2, 0.5).int().tolist()
    assert kept == [[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]
    assert magnitude_mask(TOY, 0.5).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 1], [1, 0, 0, 1]]


def test_the_square_of_the_norm_is_another_method():
    weight, squares = torch.tensor([[3.0, 1.0]]), torch.tensor([1.0, 4.0])
    assert wanda_mask(weight, squares, 0.5).tolist() == [[True, False]]
    assert wanda_mask(weight, squares.square(), 0.5).tolist() == [[False, True]]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "falcon"])
def test_each_row_of_each_layer_loses_its_share(kind):
    model = tiny(kind)
    half = pruned(model)
    for name, linear in observed_linears(half).items():
        assert (zeros_by_row(linear.weight) == 0.5).all(), name
        kept = linear.weight != 0
        assert torch.equal(linear.weight[kept], model.get_submodule(name).weight[kept])
    assert torch.equal(half.get_output_embeddings().weight, model.get_output_embeddings().weight)
    assert half(torch.tensor([PROMPTS[0]])).logits.isfinite().all()


def test_fours_and_bfloat16():
    model = tiny().bfloat16()
    four = pruned(model, wanda_two_of_four)
    for linear in observed_linears(four).values():
        assert linear.weight.dtype == torch.bfloat16
        assert ((linear.weight != 0).view(-1, 4).sum(1) == 2).all()
    with pytest.raises(CourseError, match="four divides"):
        wanda_two_of_four(torch.ones(2, 6), torch.ones(6))


def at_once(model):
    """The mistake: all layers by what they read in the dense model."""
    model, sizes = copy.deepcopy(model), observe(model, PROMPTS)
    with torch.no_grad():
        for name, linear in observed_linears(model).items():
            linear.weight.mul_(HALF(linear.weight, sizes[name].squares))
    return model


def test_later_blocks_are_pruned_by_what_pruned_ones_give():
    model = tiny()
    half, other = masks(pruned(model)), masks(at_once(model))
    first = [name for name in half if ".0." in name]
    assert first and all(torch.equal(half[name], other[name]) for name in first)
    assert entries_that_differ(half, other) > 0
    again = wanda(copy.deepcopy(model), PROMPTS, HALF)
    last = next(name for name in half if ".1.self_attn.q_proj" in name)
    squares = observe(again, PROMPTS)[last].squares
    assert torch.equal(half[last], wanda_mask(model.get_submodule(last).weight, squares, 0.5))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
def test_rescaling_changes_no_entry_of_wandas_masks_and_many_of_magnitudes(kind):
    model = tiny(kind).float()
    other = rescale_norm(copy.deepcopy(model), 64.0, [3, 17, 40])
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, other(ids).logits)
    half, again = pruned(model), pruned(other)
    assert entries_that_differ(masks(half), masks(again)) == 0
    with torch.no_grad():
        assert torch.equal(half(ids).logits, again(ids).logits)
    by_size = partial(magnitude_mask, sparsity=0.5)
    sizes, sizes_again = (masks(magnitude(copy.deepcopy(m), by_size)) for m in (model, other))
    assert entries_that_differ(sizes, sizes_again) > 100


def unscaled_scores(weight, squares, sparsity):
    """The mistake: the mean of |x| is taken for the norm's square, say: not homogeneous."""
    return keep_best(weight.abs() + squares.sqrt(), sparsity)


def test_a_score_that_is_no_product_is_caught_by_rescaling():
    model = tiny().float()
    other = rescale_norm(copy.deepcopy(model), 64.0, [3, 17, 40])
    mask = partial(unscaled_scores, sparsity=0.5)
    assert entries_that_differ(masks(pruned(model, mask)), masks(pruned(other, mask))) > 0


def test_outputs_are_kept_better_than_by_size_where_inputs_have_outliers():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(200, 32, generator=draw)
    x[:, 5] *= 30
    weight = torch.randn(16, 32, generator=draw)
    error = {
        name: (x @ (weight * ~mask).T).norm()
        for name, mask in (
            ("magnitude", magnitude_mask(weight, 0.5)),
            ("wanda", wanda_mask(weight, x.square().sum(0), 0.5)),
        )
    }
    assert error["wanda"] < 0.5 * error["magnitude"]


def test_a_sparsity_that_is_none_is_refused():
    with pytest.raises(CourseError, match="share of weights that go"):
        module.wanda_mask(TOY, NORMS, 1.0)
