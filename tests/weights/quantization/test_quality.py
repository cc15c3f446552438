"""A layer's error is that of its output on the reference's inputs; layers that read something else are refused."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.errors import CourseError
from helpers.weights.quantization.integer import install, round_to_nearest
from helpers.weights.quantization.quality import layer_errors, output_error
from helpers.weights.quantization.rescaling import rescale_norm
from tests.tiny_models import tiny

PROMPTS = [list(range(12)), [40, 3, 77]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999))
def test_the_error_by_the_hessian_is_the_output_s(seed):
    torch.manual_seed(seed)
    weight, x = torch.randn(6, 10), torch.randn(50, 10) @ torch.randn(10, 10)
    rounded = round_to_nearest(weight, 3)
    direct = ((x @ rounded.T - x @ weight.T).norm() / (x @ weight.T).norm()) ** 2
    assert output_error(weight, rounded, x.T @ x) == pytest.approx(direct.item(), rel=1e-3)
    # the planted mistake: the weights' own error, as if all inputs were alike
    assert output_error(weight, rounded, torch.eye(10)) != pytest.approx(direct.item(), rel=1e-3)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
def test_layers_by_name(kind):
    model = tiny(kind).float()
    zero = layer_errors(copy.deepcopy(model), model, PROMPTS)
    four, eight = (layer_errors(install(copy.deepcopy(model), bits), model, PROMPTS) for bits in (4, 8))
    assert list(zero) == list(four) == list(eight) and set(zero.values()) == {0.0}
    assert all(0 < eight[name] < 0.1 * four[name] for name in zero)


@torch.no_grad()
def test_errors_of_earlier_layers_don_t_count():
    model = tiny().float()
    changed = copy.deepcopy(model)
    changed.model.layers[0].mlp.down_proj.weight.mul_(1.1)
    errors = layer_errors(changed, model, PROMPTS)
    assert {name for name, error in errors.items() if error > 0} == {"model.layers.0.mlp.down_proj"}
    assert errors["model.layers.0.mlp.down_proj"] == pytest.approx(0.01, rel=1e-3)


def test_bad_input_is_refused():
    model = tiny().float()
    with pytest.raises(CourseError, match="at least one"):
        layer_errors(model, model, [])
    with pytest.raises(CourseError, match=r"Scales moved into model\.layers\.0\.input_layernorm"):
        layer_errors(rescale_norm(copy.deepcopy(model)), model, PROMPTS)
    with pytest.raises(CourseError, match="has no layer transformer"):
        layer_errors(model, tiny("falcon").float(), PROMPTS)
