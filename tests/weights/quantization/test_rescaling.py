"""Factors move through norms and layers and the model computes the same; where it wouldn't, that is refused."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers.errors import CourseError
from helpers.weights.quantization.calibration import observe
from helpers.weights.quantization.rescaling import Fold, inner_folds, norm_folds, rescale_norm
from tests.tiny_models import KINDS, tiny

IDS = torch.arange(16)[None]


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def move_all(model, folds, seed=0):
    """Random factors of 1/4 to 4 through each place."""
    generator = torch.Generator().manual_seed(seed)
    for fold in folds:
        size = fold.readers[0].in_features
        fold.move(fold.shared(4 ** (2 * torch.rand(size, generator=generator, dtype=torch.float64) - 1)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", [norm_folds, inner_folds])
def test_the_model_computes_the_same(kind, places):
    model = tiny(kind)
    there, weights = logits(model), [p.clone() for p in model.parameters()]
    folds = places(model)
    assert all(torch.equal(p, before) for p, before in zip(model.parameters(), weights))  # finding changes nothing
    assert len(folds) == (2 if kind == "falcon" else 4) * (places is norm_folds or kind != "falcon")
    move_all(model, folds)
    torch.testing.assert_close(logits(model), there, rtol=1e-9, atol=1e-9)
    assert not folds or not all(torch.equal(p, before) for p, before in zip(model.parameters(), weights))


@pytest.mark.parametrize(
    "mistake",
    [
        lambda fold: replace(fold, readers=fold.readers[:-1]) if len(fold.readers) > 1 else fold,  # one forgotten
        lambda fold: Fold(nn.Linear(1, 1), fold.readers),  # the source keeps its size
    ],
)
@pytest.mark.parametrize("kind", ["llama", "falcon"])
def test_half_of_a_move_is_caught(kind, mistake):
    model = tiny(kind)
    there = logits(model)
    for fold in norm_folds(model):
        wrong = mistake(fold)
        scale = torch.full((fold.readers[0].in_features,), 2.0)
        if wrong.source is fold.source:
            wrong.move(scale)
        else:
            for reader in wrong.readers:
                reader.weight.data.mul_(scale)
    assert not torch.allclose(logits(model), there)


def test_query_heads_with_factors_of_their_own_are_caught():
    model = tiny("llama")
    there, fold = logits(model), next(fold for fold in inner_folds(model) if fold.heads)
    assert fold.heads == (2, 2, 16)
    own = 2.0 ** torch.arange(4).repeat_interleave(16)  # two query heads share a value head
    fold.move(own)
    assert not torch.allclose(logits(model), there)


def test_norms_that_add_one_to_their_weights_are_refused():
    model = tiny("llama")
    norm = type(model.model.norm)

    class AddingNorm(norm):
        def forward(self, x):
            return super().forward(x) / self.weight * (1 + self.weight)

    for module in model.modules():
        if isinstance(module, norm):
            module.__class__ = AddingNorm
    weights = [p.clone() for p in model.parameters()]
    with pytest.raises(CourseError, match="No factors can move"):
        norm_folds(model)
    assert all(torch.equal(p, before) for p, before in zip(model.parameters(), weights))


def test_outliers_appear_and_the_model_computes_the_same_to_the_bit():
    model = tiny("llama").float()
    there, before = logits(model), observe(model, IDS.tolist())
    outliers = rescale_norm(copy.deepcopy(model), 64.0, columns=[3, 40])
    assert torch.equal(logits(outliers), there)
    after = observe(outliers, IDS.tolist())
    for name in before:
        grown = after[name].absmax / before[name].absmax
        expected = torch.ones_like(grown)
        if any(part in name for part in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")):
            expected[[3, 40]] = 64
        torch.testing.assert_close(grown, expected)


@pytest.mark.parametrize("columns", [[], [64], [-1]])
def test_columns_that_aren_t_there_are_refused(columns):
    with pytest.raises(CourseError, match="from 0 to 63"):
        rescale_norm(tiny(), columns=columns)
