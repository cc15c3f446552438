"""What notebooks 01 and 01c print of results is made from them, and each check sees a plausible mistake."""

import copy

import matplotlib.pyplot as plt
import pytest
import torch

from helpers.errors import CourseError
from helpers.measuring.cost_model import Shape, StepTime
from helpers.measuring.timing import Comparison
from helpers.models.shapes import shape_only
from helpers.notebook import activation_sizes, formats_shown, gradient_sizes, precision_costs, precision_library
from helpers.notebook import precision_speed as speed
from helpers.notebook.plots import use_style
from helpers.training.mixed_precision import TrainStep
from helpers.weights.precision.autocast import under_autocast
from helpers.weights.precision.formats import rounded
from tests.tiny_models import tiny

NOTEBOOK = "01_half_precision"

plt.switch_backend("Agg")
FULL = Shape(30, 134_000_000, 536_000_000, 46_080)
HALF = Shape(30, 134_000_000, 268_000_000, 23_040)
EQUATION = StepTime("sum", 1e-4, {"float32": 3e10, "bfloat16": 3e10}, {"float32": 1e11, "bfloat16": 4e11})


@pytest.fixture(autouse=True)
def _figures():
    use_style()
    yield
    plt.close("all")


def cut_off(x, fmt):
    near = rounded(x, fmt)
    return torch.where(near.abs() > x.abs(), rounded(x * (1 - fmt.step_at_1), fmt), near)


def test_rounding_is_torch_s_and_another_rounding_is_seen(results):
    formats_shown.compare_with_torch(results, rounded, 0, count=2000)
    assert results.invariants["precision.rounding_equals_torch"]["holds"]
    formats_shown.compare_with_torch(results, cut_off, 0, count=2000)
    assert not results.invariants["precision.rounding_equals_torch"]["holds"]


def test_formats_are_drawn_and_written_out(capsys):
    formats_shown.draw_formats()
    formats_shown.show_bits((1.5,))
    out = capsys.readouterr().out
    assert "65504" in out and "0 01111 1000000000" in out


def test_half_the_bytes_or_not(results):
    model = tiny().float()
    by_dtype = {"float32": model, "bfloat16": copy.deepcopy(model).bfloat16(), "float16": copy.deepcopy(model).half()}
    speed.show_bytes(results, by_dtype)
    assert results.invariants["precision.half_the_bytes"]["holds"]
    speed.show_bytes(results, by_dtype | {"float16": model})
    assert results.invariants["precision.half_the_bytes"] == {"holds": False, "count": 1, "of": 2}


def test_what_is_emulated_can_be_said(capsys):
    assert speed.emulated_formats("float16, bfloat16", "cpu") == {"float16", "bfloat16"}
    assert speed.emulated_formats("none", "cpu") == set()
    with pytest.raises(CourseError, match="EMULATE is 'int8': it can be auto"):
        speed.emulated_formats("int8", "cpu")


def test_the_equation_predicts_and_is_scored(results, capsys):
    shapes = {name: {"float32": FULL, "bfloat16": HALF} for name in ("llama-50m", speed.SHIPPED)}
    predicted = speed.predict_speedups(results, EQUATION, shapes)
    full, half = (EQUATION(s, d, 1, 128) for s, d in ((FULL, "float32"), (HALF, "bfloat16")))
    assert predicted["llama-50m", 1] == pytest.approx(full / half)
    assert results.metrics["precision.predicted_decode_speedup.bf16"]["value"] == pytest.approx(full / half)
    assert "precision.predicted_prefill_speedup.bf16.shipped" in results.metrics
    measured = {("llama-50m", "bfloat16", n): Comparison(1.5, 1.4, 1.6, 5) for n in (1, 8)}
    measured[speed.SHIPPED, "bfloat16", 1] = Comparison(0.9, 0.8, 1.1, 5)
    measured["llama-50m", "bfloat16", speed.PROMPT] = Comparison(3.0, 2.9, 3.1, 3)
    speed.show_speedups(results, measured, "llama-50m", predicted)
    assert {
        "precision.decode_speedup.bf16",
        "precision.decode_speedup.bf16.rows_8",
        "precision.decode_speedup.bf16.shipped",
        "precision.prefill_speedup.bf16",
    } <= set(results.metrics)
    capsys.readouterr()
    speed.read_speedups(measured, "llama-50m", predicted, 2.0)
    out = capsys.readouterr().out
    assert "Not faster here: bfloat16 on this model, 1 token (0.90x)." in out
    assert "you guessed 2" in out and "far off" in out


def test_rounded_weights_and_emulation_cost_something_and_the_model_stays(results, capsys):
    model = tiny().float()
    before = {name: p.clone() for name, p in model.named_parameters()}
    rounded_one = precision_costs.with_rounded_weights(model, "bfloat16")
    assert all(torch.equal(p, p.bfloat16().float()) for p in rounded_one.parameters())
    half = copy.deepcopy(model).bfloat16()
    by_dtype = {"float32": model, "bfloat16": half, "float16": copy.deepcopy(model)}
    pairs = [([5, 9, 13], [2, 7]), ([1, 40], [3])]
    precision_costs.show_logits(results, model, by_dtype, {"float16"}, pairs)
    errors = {d: results.metrics[f"precision.worst_logit_error.{d}"] for d in ("fp32", "bf16", "fp16")}
    assert errors["fp32"]["value"] == 0 < errors["fp16"]["value"] < errors["bf16"]["value"]
    assert errors["fp16"]["kind"] == "simulated" and "emulated" in capsys.readouterr().out
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_only_rounded_frequencies_cost_more_far_from_the_beginning(capsys):
    model = tiny().float()
    prompts = {"short": [[5, 9, 13]], "long": [list(range(1, 90))]}
    errors = precision_library.show_frequencies(model, copy.deepcopy(model), prompts)
    assert 0 <= errors["short"] < errors["long"]
    assert ".to()   keeps the frequencies in bfloat16" in capsys.readouterr().out


def test_activations_are_judged_by_their_formats(capsys):
    activations = {"a, in": torch.tensor([1e5, 1.0, 2.0]), "a": torch.tensor([1e-9, 3.0])}
    activation_sizes.draw_activations(activations)
    activation_sizes.show_fates(activations)
    out = capsys.readouterr().out
    assert "100000, at a, in" in out and "float16 20.0000% 20.0000%" in " ".join(out.split())


def test_trainings_are_read_from_their_steps(results, capsys):
    curves = {name: [TrainStep(2.0 - n / 10, 2.0**16, n == 2, 0.25) for n in range(6)] for name in gradient_sizes.KEYS}
    gradient_sizes.show_trainings(results, curves)
    assert results.metrics["precision.training_loss.bf16"]["value"] == pytest.approx(1.5)
    assert results.metrics["precision.training_loss.fp16_scaled"]["kind"] == "simulated"
    assert "Without scaling 25% of float16's gradients were 0" in capsys.readouterr().out


def test_scalers_agree_and_another_patience_is_seen(results, monkeypatch):
    fates = [True, True, True, True, False, True, True, True]
    gradient_sizes.compare_scalers(results, "cpu", fates)
    assert results.invariants["precision.loss_scaler_equals_torch"]["holds"]
    real = gradient_sizes.LossScaler
    monkeypatch.setattr(gradient_sizes, "LossScaler", lambda scale, patience: real(scale, patience + 1))
    gradient_sizes.compare_scalers(results, "cpu", fates)
    assert not results.invariants["precision.loss_scaler_equals_torch"]["holds"]


def test_autocast_holds_all_and_casts_more(results, capsys):
    model = shape_only("llama-tiny")
    arms = {"float32": model, "converted": copy.deepcopy(model).bfloat16()}
    arms["autocast"] = under_autocast(model, torch.bfloat16)
    speed.show_autocast(results, arms, torch.tensor([[5, 9, 13, 2]]), 2)
    assert {f"precision.{way}_speedup.shipped.rows_{n}" for way in ("converted", "autocast") for n in (1, 4)} == set(
        results.metrics
    )
    assert capsys.readouterr().out.count(" MB more in a pass") == 3
