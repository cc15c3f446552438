"""GPTQ makes up for errors: by hand, against brute rounding, and in models; with nothing to make up it is rounding."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.errors import CourseError
from helpers.weights.quantization import gptq as module
from helpers.weights.quantization.gptq import gptq, gptq_weight, inverse_factor, round_columns
from helpers.weights.quantization.integer import (
    IntegerLinear,
    grid_of,
    grouped,
    install,
    round_to_nearest,
    to_dense,
    weight_grid,
)
from helpers.weights.quantization.quality import layer_errors, output_error
from tests.tiny_models import tiny

PROMPTS = [[(7 * i + j * j) % 97 for j in range(24)] for i in range(12)]


def layer(rows=32, columns=64, seed=0, tokens=512):
    """A weight, and the Hessian of inputs that go together: a few directions and noise."""
    torch.manual_seed(seed)
    x = torch.randn(tokens, 8) @ torch.randn(8, columns) + 0.3 * torch.randn(tokens, columns)
    return torch.randn(rows, columns), x.T @ x


def decoded(codes, grid, group="channel"):
    return grid.decode(grouped(codes, group)).reshape(codes.shape)


def error(weight, hessian, bits, group="channel", symmetric=True, **options):
    codes, grid = gptq_weight(weight, hessian, bits, group, symmetric, **options)
    return output_error(weight, decoded(codes, grid, group), hessian)


def test_two_columns_by_hand():
    """H = [[4, 2], [2, 2]]: an error e of the first weight is best made up for by e * H12 / H22 = e in the second."""
    weight, hessian = torch.tensor([[0.6, 1.0]]), torch.tensor([[4.0, 2.0], [2.0, 2.0]])
    factor = inverse_factor(hessian, damping=0)
    torch.testing.assert_close(factor.T @ factor, hessian.inverse())
    grid = grid_of(torch.tensor([[127.0]]))  # whole numbers
    codes, errors = round_columns(weight, factor, [grid, grid])
    assert codes.tolist() == [[1, 1]]  # 0.6 becomes 1, which is 0.4 too much: the second is rounded at 0.6
    torch.testing.assert_close(errors[0, 0] * factor[0, 0], torch.tensor(-0.4))
    torch.testing.assert_close(errors[0, 1] * factor[1, 1], torch.tensor(0.6 - 1))
    codes, _ = round_columns(torch.tensor([[0.6, 0.7]]), factor, [grid, grid])
    assert codes.tolist() == [[1, 0]]  # where plain rounding has [1, 1]


@pytest.mark.parametrize("group", ["tensor", "channel", 16])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("act_order", [True, False])
def test_inputs_that_don_t_go_together_leave_plain_rounding(group, symmetric, act_order):
    weight, _ = layer(columns=160)
    hessian = torch.diag(torch.rand(160) + 0.1)
    codes, grid = gptq_weight(weight, hessian, 4, group, symmetric, act_order=act_order)
    there = weight_grid(weight, 4, group, symmetric)
    assert torch.equal(codes, there.encode(grouped(weight, group)).reshape(weight.shape))
    assert torch.equal(grid.scale, there.scale)
    if not symmetric:
        assert torch.equal(grid.zero, there.zero)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from([2, 3, 4]), st.sampled_from(["channel", 16]), st.booleans(), st.booleans())
def test_it_beats_rounding_to_nearest_when_inputs_go_together(seed, bits, group, symmetric, act_order):
    weight, hessian = layer(seed=seed)
    plain = output_error(weight, round_to_nearest(weight, bits, group, symmetric), hessian)
    assert error(weight, hessian, bits, group, symmetric, act_order=act_order) < 0.8 * plain


def test_errors_fed_the_wrong_way_are_caught():
    weight, hessian = layer()
    factor, grids = inverse_factor(hessian), [weight_grid(weight, 3)] * 64
    plain = output_error(weight, round_to_nearest(weight, 3), hessian)
    wrong = 2 * torch.diag(factor.diagonal()) - factor
    codes, _ = round_columns(weight, wrong, grids)
    assert output_error(weight, decoded(codes, grids[0]), hessian) > plain
    codes, _ = round_columns(weight, factor.T.contiguous(), grids)  # the lower factor: nothing is fed forward
    assert output_error(weight, decoded(codes, grids[0]), hessian) >= 0.99 * plain


def test_errors_that_stay_in_their_block_are_caught(monkeypatch):
    weight, hessian = layer(columns=256)
    whole = error(weight, hessian, 3)
    monkeypatch.setattr(module, "BLOCK", 32)
    blocks = error(weight, hessian, 3)
    assert abs(blocks / whole - 1) < 0.05  # the same sums in another order
    factor = inverse_factor(hessian)
    alone = torch.block_diag(*(factor[i : i + 32, i : i + 32] for i in range(0, 256, 32)))
    monkeypatch.setattr(module, "inverse_factor", lambda *given: alone)
    assert error(weight, hessian, 3) > 1.2 * whole


def test_columns_come_back_in_their_own_order():
    weight, hessian = layer()
    hessian = hessian * (torch.arange(64)[:, None] + 1) * (torch.arange(64) + 1)  # later inputs are larger
    codes, grid = gptq_weight(weight, hessian, 4, 16, act_order=True)
    plain = output_error(weight, round_to_nearest(weight, 4, 16), hessian)
    assert output_error(weight, decoded(codes, grid, 16), hessian) < plain
    assert output_error(weight, decoded(codes.flip(1), grid, 16), hessian) > 10 * plain


def test_an_input_that_never_came_rounds_its_weight_and_moves_no_other():
    weight, hessian = layer()
    hessian[:, 5] = hessian[5] = 0
    codes, grid = gptq_weight(weight, hessian, 4)
    assert torch.equal(codes[:, 5], grid.encode(weight)[:, 5])
    assert error(weight, hessian, 4) < 0.8 * output_error(weight, round_to_nearest(weight, 4), hessian)


def test_a_hessian_that_is_none_is_refused():
    weight, hessian = layer(tokens=16)  # fewer tokens than inputs: singular
    with pytest.raises(CourseError, match=r"damping 0: take more"):
        gptq_weight(weight, hessian - 1e-3 * torch.eye(64), damping=0)
    assert gptq_weight(weight, hessian)[0].shape == weight.shape
    hessian[0, 0] = float("inf")
    with pytest.raises(CourseError, match="NaN or infinity"):
        gptq_weight(weight, hessian)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
@pytest.mark.parametrize("group, symmetric", [("channel", True), (16, False)])
def test_a_model_s_layers_are_nearer_than_rounded_ones(kind, group, symmetric):
    model = tiny(kind).float()
    plain = install(copy.deepcopy(model), 3, group, symmetric)
    ours = gptq(copy.deepcopy(model), PROMPTS, 3, group, symmetric)
    there, here = (layer_errors(m, model, PROMPTS) for m in (plain, ours))
    assert all(isinstance(ours.get_submodule(name), IntegerLinear) for name in here)
    assert sum(here.values()) < 0.8 * sum(there.values())
    ids = torch.tensor(PROMPTS[:1])
    with torch.no_grad():
        logits = ours(ids).logits
        assert logits.isfinite().all()
        torch.testing.assert_close(to_dense(ours)(ids).logits, logits, rtol=1e-3, atol=1e-3)


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
        gptq(tiny().float(), **(dict(prompts=PROMPTS) | options))
