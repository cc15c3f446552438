"""AWQ finds the scale that rounding wants, and the model keeps its function but for the rounding."""

import copy

import pytest
import torch
from torch import nn

from helpers.errors import CourseError
from helpers.weights.quantization.awq import (
    _error_by_scale,
    awq,
    awq_scale,
    clipped_grid,
    rounded_with_scale,
    search_scale,
)
from helpers.weights.quantization.integer import IntegerLinear, grouped, install, round_to_nearest, weight_grid
from helpers.weights.quantization.quality import output_error, output_size
from helpers.weights.quantization.rescaling import rescale_norm
from tests.tiny_models import KINDS, tiny

PROMPTS = [[(7 * i + j * j) % 97 for j in range(24)] for i in range(12)]


def layer(rows=32, columns=64, seed=0, tokens=512):
    """A weight, the mean sizes of inputs, four of them large, and their Hessian."""
    torch.manual_seed(seed)
    x = torch.randn(tokens, 8) @ torch.randn(8, columns) + 0.3 * torch.randn(tokens, columns)
    x[:, :4] *= 30
    return torch.randn(rows, columns), x.abs().mean(0), x.T @ x


def relative(here, there):
    return ((here - there).norm() / there.norm()).item()


def test_the_scale_by_hand():
    scale = awq_scale(torch.tensor([1.0, 16.0, 4.0]), 0.5)
    torch.testing.assert_close(scale, torch.tensor([0.5, 2.0, 1.0]))  # 1, 4, 2 by the middle of their range
    assert torch.equal(awq_scale(torch.tensor([1.0, 16.0]), 0), torch.ones(2))
    assert (awq_scale(torch.tensor([0.0, 1.0]), 1.0) > 0).all()


@pytest.mark.parametrize("group", ["channel", 16])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_it_beats_rounding_to_nearest_when_some_inputs_are_large(seed, bits, group):
    weight, sizes, hessian = layer(seed=seed)
    alpha, scale, errors = search_scale(weight, sizes, hessian, bits, group)
    plain = output_error(weight, round_to_nearest(weight, bits, group), hessian)
    ours = output_error(weight, rounded_with_scale(weight, scale, bits, group), hessian)
    assert alpha > 0 and ours < 0.9 * plain
    assert errors[0.0] / output_size(weight, hessian) == pytest.approx(plain, rel=1e-4)
    assert errors[alpha] == min(errors.values()) and list(errors) == pytest.approx([i / 20 for i in range(21)])


def test_a_scale_on_the_wrong_side_is_caught():
    weight, sizes, hessian = layer()
    _, scale, errors = search_scale(weight, sizes, hessian, 3)
    wrong = rounded_with_scale(weight, 1 / scale, 3)  # large inputs get the coarser steps
    assert output_size(wrong - weight, hessian) > 2 * errors[0.0]
    no_division = round_to_nearest(weight * scale, 3)
    assert output_size(no_division - weight, hessian) > 2 * errors[0.0]


@pytest.mark.parametrize("group", ["tensor", "channel", 16])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_clipped_ranges_leave_less_error(bits, symmetric, group):
    weight, _, hessian = layer()
    grid = clipped_grid(weight, hessian, bits, group, symmetric)
    full = weight_grid(weight, bits, group, symmetric)
    assert grid.scale.shape == full.scale.shape and (grid.scale <= full.scale).all()
    assert grid.zero is full.zero or torch.equal(grid.zero, full.zero)
    ours, plain = (output_error(weight, rounded(g, weight, group), hessian) for g in (grid, full))
    assert ours < (0.9 if bits == 2 and symmetric else 1.05) * plain
    least = clipped_grid(weight, hessian, bits, group, symmetric, ratios=[0.2])  # the planted mistake: always clipped
    assert ours < output_error(weight, rounded(least, weight, group), hessian)


def rounded(grid, weight, group):
    return grid.round(grouped(weight, group)).reshape(weight.shape)


def test_errors_are_counted_by_scale():
    torch.manual_seed(0)
    error, x = torch.randn(6, 32), torch.randn(50, 32)
    hessian = x.T @ x
    torch.testing.assert_close(_error_by_scale(error, hessian), (x @ error.T).square().sum(0))
    torch.testing.assert_close(_error_by_scale(error.reshape(1, -1), hessian), (x @ error.T).square().sum()[None])
    by_group = torch.stack([(x[:, i : i + 8] @ error[:, i : i + 8].T).square().sum(0) for i in range(0, 32, 8)], dim=1)
    torch.testing.assert_close(_error_by_scale(error.reshape(6, 4, 8), hessian), by_group.flatten())


@pytest.mark.parametrize("kind", KINDS)
def test_with_many_bits_the_model_computes_the_same(kind):
    """What the scales multiply is divided elsewhere: at eight bits nothing but a little rounding is left."""
    model, ids = tiny(kind).float(), torch.tensor(PROMPTS[:2])
    eight = awq(copy.deepcopy(model), PROMPTS, 8)
    assert type(eight.get_output_embeddings()) is nn.Linear
    assert sum(isinstance(m, IntegerLinear) for m in eight.modules()) == (8 if kind == "falcon" else 14)
    with torch.no_grad():
        there = model(ids).logits
        assert relative(eight(ids).logits, there) < 1.5 * relative(install(model, 8)(ids).logits, there)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
def test_with_outliers_it_beats_rounding_to_nearest(kind):
    model, ids = rescale_norm(tiny(kind).float(), 32.0, [3, 17, 40]), torch.tensor(PROMPTS[:4])
    with torch.no_grad():
        there = model(ids).logits
        ours = relative(awq(copy.deepcopy(model), PROMPTS, 4, 16)(ids).logits, there)
        assert ours < 0.9 * relative(install(model, 4, 16)(ids).logits, there)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(bits=1), "2 to 8 bits"),
        (dict(group=48), "don't divide"),
        (dict(prompts=[]), "take calibration_prompts"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(CourseError, match=message):
        awq(tiny().float(), **(dict(prompts=PROMPTS) | options))
