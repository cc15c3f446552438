"""Masks keep exactly so many weights of each row, the best ones, and in 2:4 two of each four; magnitude takes sizes."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune

from helpers.errors import CourseError
from helpers.weights.pruning.magnitude import magnitude, magnitude_mask, magnitude_two_of_four
from helpers.weights.pruning.sparsity import keep_best, keep_two_of_four, zeros_by_row
from helpers.weights.quantization.calibration import observed_linears
from tests.tiny_models import tiny


def scores(rows=6, columns=24, seed=0):
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.floats(0, 0.99), st.integers(1, 40))
def test_each_row_keeps_exactly_its_share_and_nothing_better_goes(seed, sparsity, columns):
    s = scores(columns=columns, seed=seed)
    mask = keep_best(s, sparsity)
    assert (mask.sum(1) == columns - round(sparsity * columns)).all()
    worst_kept = s.masked_fill(~mask, 2).amin(1)
    best_gone = s.masked_fill(mask, -1).amax(1)
    assert (worst_kept >= best_gone).all()


def test_of_equal_scores_just_so_many_go():
    mask = keep_best(torch.tensor([[1.0, 2.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0]]), 0.5)
    assert mask.sum(1).tolist() == [2, 2] and mask[0, 1]
    assert keep_two_of_four(torch.ones(1, 8)).view(2, 4).sum(1).tolist() == [2, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_is_ranked_and_nothing_may_go(dtype):
    assert keep_best(scores().to(dtype), 0.0).all()
    assert (keep_best(scores().to(dtype).flatten(), 0.5).sum()) == 72


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999))
def test_two_of_each_four_neighbours_stay(seed):
    s = scores(seed=seed)
    mask = keep_two_of_four(s)
    assert mask.shape == s.shape and (mask.view(-1, 4).sum(1) == 2).all()
    fours = s.view(-1, 4).sort(1, descending=True).values
    torch.testing.assert_close(s[mask].view(-1, 2).sum(1), fours[:, :2].sum(1))


def in_columns(s):
    """The mistake: fours down the columns."""
    return keep_two_of_four(s.T.contiguous()).T


def test_fours_down_the_columns_are_caught():
    wrong = in_columns(scores(rows=8))
    assert (wrong.sum(1) != 12).any()


def test_magnitude_is_torchs_own():
    weight = torch.randn(8, 12)
    layer = torch.nn.Linear(12, 8)
    layer.weight.data = weight.clone()
    prune.l1_unstructured(layer, "weight", amount=0.5)
    assert torch.equal(magnitude_mask(weight, 0.5), layer.weight_mask.bool())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "falcon"])
def test_magnitude_prunes_the_blocks_and_nothing_else(kind):
    model = tiny(kind)
    pruned = magnitude(copy.deepcopy(model), partial(magnitude_mask, sparsity=0.25))
    inside = observed_linears(pruned)
    for name, p in pruned.named_parameters():
        before = model.get_parameter(name)
        if name.removesuffix(".weight") in inside and name.endswith("weight"):
            assert (p == 0).double().mean().item() == pytest.approx(0.25, abs=1 / p.numel())
            assert torch.equal(p[p != 0], before[p != 0])
        else:
            assert torch.equal(p, before)


def test_magnitude_compares_over_the_layer_and_two_of_four_in_rows():
    weight = torch.tensor([[5.0, -6.0, 7.0, 8.0], [1.0, 2.0, -3.0, 4.0]])
    assert magnitude_mask(weight, 0.5).tolist() == [[True] * 4, [False] * 4]
    assert zeros_by_row(weight * magnitude_mask(weight, 0.5)).tolist() == [0.0, 1.0]
    assert magnitude_two_of_four(weight).tolist() == [[False, False, True, True]] * 2


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 3])
def test_a_sparsity_that_is_none_is_refused(sparsity):
    with pytest.raises(CourseError, match="share of weights that go"):
        magnitude_mask(torch.ones(2, 4), sparsity)


def test_rows_that_four_does_not_divide_are_refused():
    with pytest.raises(CourseError, match="four divides, not 6"):
        magnitude_two_of_four(torch.ones(2, 6))
