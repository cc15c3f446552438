"""SmoothQuant leaves the function, and W8A8 after it is nearer than plain W8A8 where activations have outliers."""

import copy

import pytest
import torch

from helpers.errors import CourseError
from helpers.weights.quantization import rescaling
from helpers.weights.quantization import smoothquant as module
from helpers.weights.quantization.calibration import observe
from helpers.weights.quantization.llm_int8 import Int8Linear
from helpers.weights.quantization.rescaling import Fold, norm_folds, rescale_norm
from helpers.weights.quantization.smoothquant import alpha_sweep, smooth, smooth_scale, smoothquant, w8a8
from tests.tiny_models import KINDS, tiny

PROMPTS = [[(7 * i + j * j) % 97 for j in range(24)] for i in range(12)]
IDS = torch.tensor(PROMPTS[:4])


def relative(here, there):
    return ((here - there).norm() / there.norm()).item()


def with_outliers(kind="llama"):
    """Three channels are large in what norms give and small in the columns that read it."""
    return rescale_norm(tiny(kind).float(), 64.0, [3, 17, 40])


@torch.no_grad()
def with_outliers_that_count():
    """Three channels are large in what norms give, and the layers that read it are as they were."""
    model = tiny().float()
    for fold in norm_folds(model):
        fold.source.weight[[3, 17, 40]] *= 64
    return model


def test_the_scale_by_hand():
    activation, weight = torch.tensor([16.0, 1.0]), torch.tensor([1.0, 4.0])
    torch.testing.assert_close(smooth_scale(activation, weight, 0.5), torch.tensor([4.0, 0.5]))
    torch.testing.assert_close(smooth_scale(activation, weight, 1.0), activation)
    torch.testing.assert_close(smooth_scale(activation, weight, 0.0), 1 / weight)
    assert smooth_scale(torch.zeros(1), torch.zeros(1)).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@torch.no_grad()
def test_smoothing_leaves_the_function(kind, alpha):
    model = tiny(kind)
    there, before = model(IDS).logits, observe(model, PROMPTS)
    smooth(model, before, alpha)
    torch.testing.assert_close(model(IDS).logits, there, rtol=1e-6, atol=1e-6)
    after = observe(model, PROMPTS)
    assert any(not torch.allclose(after[name].absmax, before[name].absmax, rtol=1e-2) for name in before)


@torch.no_grad()
def test_at_a_half_inputs_and_columns_are_alike():
    model = with_outliers()
    smooth(model, observe(model, PROMPTS), 0.5)
    attention = model.model.layers[0].self_attn
    columns = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]).abs().amax(0)
    inputs = observe(model, PROMPTS)["model.layers.0.self_attn.q_proj"].absmax
    torch.testing.assert_close(inputs, columns, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_a_scale_that_isn_t_taken_off_again_is_caught(monkeypatch):
    model = with_outliers()
    there = model(IDS).logits
    monkeypatch.setattr(Fold, "move", move_readers_alone)
    with pytest.raises(CourseError, match="No factors can move"):
        smooth(model, observe(model, PROMPTS))
    monkeypatch.setattr(rescaling, "_checked", lambda model, folds: folds)
    smooth(model, observe(model, PROMPTS))
    assert not torch.allclose(model(IDS).logits, there, rtol=1e-2, atol=1e-2)


def move_readers_alone(fold, scale):
    for reader in fold.readers:
        reader.weight.data.mul_(scale)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
@torch.no_grad()
def test_with_outliers_it_beats_plain_w8a8(kind):
    model = with_outliers(kind)
    there = model(IDS).logits
    plain = relative(w8a8(copy.deepcopy(model))(IDS).logits, there)
    ours = relative(smoothquant(copy.deepcopy(model), PROMPTS)(IDS).logits, there)
    assert ours < 0.7 * plain


@torch.no_grad()
def test_a_scale_upside_down_is_caught(monkeypatch):
    model = with_outliers_that_count()
    there = model(IDS).logits
    plain = relative(w8a8(copy.deepcopy(model))(IDS).logits, there)
    assert relative(smoothquant(copy.deepcopy(model), PROMPTS)(IDS).logits, there) < plain
    monkeypatch.setattr(module, "smooth_scale", lambda *given: 1 / smooth_scale(*given))
    assert relative(smoothquant(copy.deepcopy(model), PROMPTS)(IDS).logits, there) > plain


def test_all_layers_but_the_head_are_w8a8():
    model = smoothquant(tiny().float(), PROMPTS)
    layers = [m for m in model.modules() if isinstance(m, Int8Linear)]
    assert len(layers) == 14 and all(layer.threshold is None for layer in layers)


def test_a_sweep_has_its_best_inside_and_leaves_the_model():
    model = with_outliers_that_count()
    weights = [p.clone() for p in model.parameters()]
    errors = alpha_sweep(model, PROMPTS, PROMPTS[:3], (0.0, 0.5, 1.0))
    assert list(errors) == [0.0, 0.5, 1.0] and errors[0.5] < errors[0.0]
    assert all(torch.equal(p, before) for p, before in zip(model.parameters(), weights))


@pytest.mark.parametrize(
    "bad, message",
    [
        (lambda: smoothquant(tiny().float(), PROMPTS, 1.5), "from 0 to 1, not 1.5"),
        (lambda: smoothquant(tiny().float(), []), "take calibration_prompts"),
        (lambda: alpha_sweep(tiny().float(), PROMPTS, []), "texts to compare"),
    ],
)
def test_bad_input_is_refused(bad, message):
    with pytest.raises(CourseError, match=message):
        bad()
