"""What notebooks 02, 02b, 02c and 02d print and write is made from results, and each check sees a plausible mistake."""

import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from helpers import models
from helpers.errors import CourseError
from helpers.measuring.cost_model import StepTime
from helpers.measuring.quality import logits_of, perplexity
from helpers.notebook import quantization_answers as answers
from helpers.notebook import quantization_files as files_
from helpers.notebook import quantization_gptq as of_gptq
from helpers.notebook import quantization_grids as grids
from helpers.notebook import quantization_library as library
from helpers.notebook import quantization_methods as methods
from helpers.notebook import quantization_outliers as outliers
from helpers.notebook import quantization_qat as of_qat
from helpers.notebook import quantization_quality as quality
from helpers.notebook import quantization_smoothquant as of_smoothquant
from helpers.notebook import quantization_speed as speed
from helpers.notebook.plots import use_style
from helpers.notebook.quantization_models import Opened, Texts, copy_of, in_bfloat16
from helpers.notebook.quantization_sizes import QUANTIZATION, QuantizationSizes
from helpers.profiling.quantized_steps import PROMPT, QuantizedSteps
from helpers.profiling.served_checkpoint import Served
from helpers.text_to_sql.dataset import load_split
from helpers.weights.quantization import integer
from helpers.weights.quantization.calibration import (
    Hessian,
    InputSizes,
    answer_pairs,
    calibration_prompts,
    observe,
    observed_linears,
)
from helpers.weights.quantization.q4_1 import through_q4_1
from helpers.weights.quantization.qat import straight_through_step
from helpers.weights.quantization.smoothquant import w8a8
from tests.tiny_folders import target_and_draft

NOTEBOOK = "02_quantization"

plt.switch_backend("Agg")
SIZES = QuantizationSizes(None, 2, 3, (3, 2), 2, 6, 2, 1, "llama-50m", 2, 0, 2, 0, 3, 2)


@pytest.fixture(autouse=True)
def _figures():
    use_style()
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return models.load(target_and_draft(tmp_path_factory.mktemp("tiny")) / "target")


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0]


@pytest.fixture(scope="module")
def tokenizer(loaded):
    return loaded[1]


@pytest.fixture(scope="module")
def texts(tokenizer):
    test = load_split("test", limit=2)
    return Texts(calibration_prompts(tokenizer, 2), test, answer_pairs(tokenizer, test))


def test_every_profile_compares_in_three_bits_and_has_texts_enough():
    for sizes in QUANTIZATION.values():
        assert 3 in sizes.few_bits
        assert max(sizes.logits, sizes.timed) <= sizes.texts


def test_copies_share_the_embedding_alone_and_stay_apart(model):
    one, half = copy_of(model), in_bfloat16(model)
    assert one.get_input_embeddings().weight is model.get_input_embeddings().weight
    assert all(p.dtype == torch.bfloat16 for p in half.parameters()) and half.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in model.parameters())
    frequencies = [b for n, b in half.named_buffers() if n.endswith("inv_freq")]
    assert frequencies and all(b.dtype == torch.float32 for b in frequencies)
    linear = next(iter(observed_linears(one).values()))
    with torch.no_grad():
        linear.weight.zero_()
    assert all(other.weight.any() for other in observed_linears(model).values())


# ---- grids


def test_groups_are_listed_with_their_bits_and_errors(model, capsys):
    grids.show_groups(next(iter(observed_linears(model).values())), ("channel", 16, 7))
    out = capsys.readouterr().out
    assert "4, group of 16" in out and "5.00" in out  # 4 bits and a scale of 16 for 16 weights
    assert "8, 7: left out. Groups of 7 don't divide rows of 32 weights" in out


def test_the_base_lies_on_its_own_grid_or_not(results, model, texts, capsys):
    base = copy_of(model)
    for linear in observed_linears(base).values():
        linear.weight.data = through_q4_1(linear.weight.data)
    grids.show_own_grid(results, {"base": base, "fine-tuned": model}, texts.pairs)
    out = capsys.readouterr().out
    assert "The base lies on its own grid already" in out and "The fine-tuned weights have left it" in out
    error = {key: row["value"] for key, row in results.metrics.items() if "rounding_error" in key}
    assert error["quantization.rounding_error.own_grid.base"] < 0.01
    assert error["quantization.rounding_error.shifted_grid.base"] > 0.02
    assert error["quantization.rounding_error.own_grid.fine_tuned"] > 0.02
    grids.show_own_grid(results, {"base": model}, texts.pairs)
    assert "no rounding is free" in capsys.readouterr().out


def test_rounding_a_copy_leaves_the_model(model):
    before = {name: linear.weight.clone() for name, linear in observed_linears(model).items()}
    rounded, error = grids.rounded_copy(model, lambda weight: integer.round_to_nearest(weight, 2))
    assert error > 0.1
    assert all(torch.equal(linear.weight, before[name]) for name, linear in observed_linears(model).items())
    assert not torch.equal(next(iter(observed_linears(rounded).values())).weight, next(iter(before.values())))


def test_four_bits_are_compared(model, capsys):
    grids.show_four_bits(observed_linears(model))
    out = capsys.readouterr().out
    for name in ("even grid, groups of 32", "NF4, blocks of 64"):
        bits, error = re.search(rf"{name} +([\d.]+) +([\d.]+)%", out).groups()
        assert 4 < float(bits) < 6 and 1 < float(error) < 20
    assert "even grid, groups of 64: left out" in out  # rows of 32
    assert not re.search(r"even grid, groups of 64 +\d", out)
    assert "NF4's error is" not in out and "Smaller groups buy" in out
    grids.draw_rows(next(iter(observed_linears(model).values())).weight.detach())
    grids.draw_block(next(iter(observed_linears(model).values())).weight)
    grids.show_double_quantization(next(iter(observed_linears(model).values())))
    assert "bits a weight" in capsys.readouterr().out


# ---- outliers


def sizes_with(outlier):
    torch.manual_seed(0)
    plain, uneven = InputSizes(8), InputSizes(8)
    x = torch.rand(20, 8)
    plain.add(x)
    x[3, 5] = outlier
    uneven.add(x)
    return {"plain": plain, "uneven": uneven}


def test_outliers_are_found_where_they_are(results, capsys):
    assert outliers.draw_outliers(results, sizes_with(40.0)) == "uneven"
    assert results.metrics["quantization.outlier_columns"]["value"] == pytest.approx(1 / 16)
    assert "1 of 2 linear layers read outliers" in capsys.readouterr().out
    outliers.draw_outliers(results, sizes_with(0.5))
    assert results.metrics["quantization.outlier_columns"]["value"] == 0


def test_keeping_outliers_apart_helps_where_there_are_some(capsys):
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(12, 32, generator=draw), torch.randn(10, 32, generator=draw)
    methods.show_int8_products(weight, x)
    assert "There is nothing to keep apart." in capsys.readouterr().out
    x[:, 4] *= 60
    methods.show_int8_products(weight, x)
    out = capsys.readouterr().out
    assert "1 of 32 columns are outliers" in out and "Keeping them apart leaves" in out
    outliers.draw_split(x)


def test_a_layers_inputs_are_what_it_reads(model):
    name, linear = next(iter(observed_linears(model).items()))
    x = outliers.inputs_of(model, name, [5, 9, 13])
    assert x.shape == (3, linear.in_features)
    embedded = model.get_input_embeddings()(torch.tensor([5, 9, 13]))
    assert torch.allclose(x, model.model.layers[0].input_layernorm(embedded), atol=1e-6)


# ---- quality


def test_perplexity_has_an_interval_and_compares_text_by_text(model, texts):
    one = quality.perplexity_of(model, texts.pairs)
    assert one.value == pytest.approx(perplexity(logits_of(model), texts.pairs), rel=1e-5)
    assert one.low <= one.value <= one.high and one.n == 2
    assert quality.ratio_of(one, one) == pytest.approx((1, 1, 1))
    twice = quality.Perplexity(2 * one.value, 0, 9, tuple((nats + n * 0.6931472, n) for nats, n in one.losses))
    assert quality.ratio_of(twice, one) == pytest.approx((2, 2, 2), rel=1e-5)


def test_all_methods_are_measured_and_the_model_stays(results, model, tokenizer, texts, capsys):
    before = {name: p.clone() for name, p in model.named_parameters()}
    opened = Opened(model, model, tokenizer, "tiny")
    found, kept = methods.compare_methods(results, opened, texts, 32, SIZES)
    assert set(found) == {"fp32", "bf16", *methods.METHODS} and set(kept) == set(methods.KEPT)
    ratio = {key: results.metrics[f"quantization.linear_bytes_ratio.{key}"]["value"] for key in found}
    assert ratio["fp32"] == 2 and ratio["bf16"] == 1
    assert 0.5 < ratio["int8"] < 0.6 and 0.25 < ratio["nf4"] < 0.32 and ratio["rtn"] == pytest.approx(4.5 / 16)
    assert results.metrics["quantization.worst_logit_error.fp32"]["value"] < 1e-3
    for key in methods.METHODS:
        assert results.metrics[f"quantization.answers_broken.{key}"]["n"] == 2
        assert results.metrics[f"quantization.worst_logit_error.{key}"]["value"] > 1e-3
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    out = capsys.readouterr().out
    assert "In 4 bits" in out and "the adapter beside it: left out, this model has no adapter" in out
    answers.draw_bytes(found)
    methods.broken_per_hundred(results, found, 5.0)
    assert "None" not in capsys.readouterr().out


def test_an_adapter_beside_the_base_leaves_it_on_its_grid(model, tokenizer, tmp_path, monkeypatch):
    base = copy_of(model)
    for linear in observed_linears(base).values():
        linear.weight.data = through_q4_1(linear.weight.data)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"1" * 100)
    monkeypatch.setattr(methods.models, "folder_of", lambda name: str(tmp_path))
    beside, held = methods.adapter_beside(Opened(base, model, tokenizer, "tuned"))
    exact = observed_linears(model)
    for name, linear in observed_linears(beside).items():
        off, merged_off = (
            (weight - exact[name].weight).norm() for weight in (linear.weight, through_q4_1(exact[name].weight))
        )
        assert off < 0.2 * merged_off
    assert held == methods.num_weights(model) * 5 // 8 + 100
    with pytest.raises(CourseError, match="no adapter"):
        methods.adapter_beside(Opened(model, model, tokenizer, "tiny"))


def test_methods_that_move_answers_are_named(capsys):
    def one(words, right):
        judged = SimpleNamespace(right=right)
        value = quality.Perplexity(1, 1, 1, ((1.0, 1),))
        return quality.Quality(words, 1, 4, value, 0.0, 1, judged)

    good, bad = [True] * 20, [False] * 8 + [True] * 12
    quality.read_quality({"fp32": one("float32", good), "rtn": one("plain", bad), "awq": one("AWQ", good)})
    assert "AWQ can be told from plain rounding" in " ".join(capsys.readouterr().out.split())
    quality.read_quality({"fp32": one("float32", good), "rtn": one("plain", good), "awq": one("AWQ", good)})
    assert "no method's answers can be told" in " ".join(capsys.readouterr().out.split())


def test_few_bits_are_compared_text_by_text(results, model, texts, capsys):
    methods.compare_few_bits(results, model, texts, SIZES)
    for name in ("rtn", "awq", "gptq"):
        for bits in (3, 2):
            assert results.metrics[f"quantization.perplexity.{name}.{bits}bit"]["n"] == 2
    assert "quantization.perplexity_over_rtn.rtn.3bit" not in results.metrics
    assert "3 bits, GPTQ" in capsys.readouterr().out


# ---- the library


def test_codes_are_bitsandbytes_and_others_are_seen(results, model, monkeypatch):
    library.compare_codes(results, model)
    invariants = results.invariants
    assert invariants["quantization.nf4_equals_bitsandbytes"]["holds"]
    assert invariants["quantization.int8_equals_bitsandbytes"]["holds"]
    real = library.nf4_codes
    monkeypatch.setattr(library, "nf4_codes", lambda x: real(x * 1.01))
    monkeypatch.setattr(library, "Int8Linear", lambda linear: integer.IntegerLinear.of(linear, 7))
    monkeypatch.setattr(integer.IntegerLinear, "codes", property(lambda self: self.integer_codes()), raising=False)
    library.compare_codes(results, model)
    assert not invariants["quantization.nf4_equals_bitsandbytes"]["holds"]
    assert invariants["quantization.int8_equals_bitsandbytes"]["count"] == 0


# ---- speed


def steps_of(name, size, *milliseconds):
    """Times of 1, 8 and 32 rows and of a prefill, the same in all rounds but for a little."""
    rounds = [[m * 1e-3 * (1 + r / 1000) for r in range(6)] for m in milliseconds]
    return QuantizedSteps(name, size, dict(zip((1, 8, 32), rounds)), PROMPT, rounds[3])


TIMED = {
    "float32": steps_of("float32", 2_000_000_000, 60, 70, 90, 500),
    "bf16": steps_of("bf16", 1_000_000_000, 30, 31, 40, 200),
    "int8": steps_of("int8", 500_000_000, 18, 25, 60, 200),
    "int4": steps_of("int4", 270_000_000, 12, 31, 80, 210),
}


def test_speeds_are_written_over_both_baselines_and_read(results, capsys):
    speed.show_steps(TIMED, 40e9, "a shape")
    speed.note_shape(results, TIMED, 40e9)
    speed.note_model(results, TIMED, 40e9)
    value = {key: row["value"] for key, row in results.metrics.items()}
    assert value["quantization.decode_speedup.int8"] == pytest.approx(60 / 18)
    assert value["quantization.decode_speedup_over_bf16.int4.rows_32"] == pytest.approx(0.5)
    assert value["quantization.decode_speedup.model.int4"] == pytest.approx(2.5)
    assert value["quantization.prefill_speedup.model.int4"] == pytest.approx(200 / 210)
    assert value["quantization.bandwidth_share.bf16"] == pytest.approx(1 / 0.03 / 40, rel=1e-2)
    assert all(row["n"] == 6 for key, row in results.metrics.items() if "decode" in key)
    speed.draw_steps(TIMED, "a step")
    capsys.readouterr()
    speed.read_steps(TIMED, "a shape")
    out = " ".join(capsys.readouterr().out.split())
    assert "int8 against bfloat16 is faster at 1 row (1.67), 8 rows (1.24); is slower at 32 rows" in out
    speed.read_formats(TIMED, {"bf16": 1.0, "nf4": 4.0})
    out = capsys.readouterr().out
    assert "Smaller and faster than bfloat16: int8, int4" in out
    assert "nf4 of bitsandbytes (4.0 times bfloat16's time)" in out


def test_the_equation_predicts_from_the_bytes(results, capsys):
    equation = StepTime("sum", 0.0, dict.fromkeys(("float32", "bfloat16"), 3e10), {"float32": 1e20, "bfloat16": 1e20})
    predicted = speed.predict_steps(results, equation, "llama-50m", 64)
    assert 1.9 < predicted["bf16"] < 2.01 and 3.5 < predicted["int8"] < 4.01 and 6 < predicted["int4"] < 7.6
    assert results.metrics["quantization.predicted_decode_speedup.int8"]["kind"] == "predicted"
    slow = StepTime("max", 1.0, equation.bandwidth, equation.rate)
    assert speed.predict_steps(results, slow, "llama-50m", 64)["int4"] < 1.1  # all of it is overhead
    speed.note_shape(results, TIMED, 40e9)
    speed.read_guess(results, predicted, 8.0)
    assert "you guessed 8" in capsys.readouterr().out


def test_figures_that_took_no_turns_are_compared_all_the_same():
    gain = answers.ratio_of_medians([0.02, 0.021, 0.019], [0.01, 0.011, 0.01, 0.0099])
    assert gain.low <= gain.ratio <= gain.high and gain.ratio == pytest.approx(2.0) and gain.n == 3


def test_the_profile_leaves_llama_cpp_out(results, capsys):
    opened = SimpleNamespace(tuned=None, name="x")
    assert answers.time_llama(results, opened, TIMED, [[1]], SIZES) == ({}, {})
    assert "llama.cpp takes no part: this profile leaves it out" in capsys.readouterr().out


def test_answers_and_speed_are_of_the_same_layers(results, model, tokenizer, texts, capsys):
    arms = dict.fromkeys(("bf16", "int8", "int4", "w8a8"), model)
    timed = TIMED | {"w8a8": steps_of("w8a8", 500_000_000, 20, 25, 60, 200)}
    found = answers.answers_by_speed(results, arms, timed, {}, {}, tokenizer, texts.test, SIZES)
    assert found["int4"][0] == pytest.approx(1 / 0.012, rel=0.01)
    assert results.metrics["quantization.execution_accuracy.step_int8"]["n"] == 2
    answers.draw_speed(found)
    assert "The fastest is int4:" in capsys.readouterr().out
    prompts = [prompt for prompt, _ in texts.pairs]
    answers.show_whole_answers(results, arms, tokenizer, texts.test, prompts, 4)
    assert len(results.prompts) == 6 and "2 of 2 answers are bfloat16's" in capsys.readouterr().out


# ---- files and vLLM


def test_files_are_measured_and_go(results, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files_, "build_root", lambda: tmp_path)
    eight = integer.install(copy_of(model), 8)
    files_.show_load(results, {"bf16": in_bfloat16(model), "int8": in_bfloat16(eight)}, 1)
    assert results.metrics["quantization.file_mb.int8"]["value"] < results.metrics["quantization.file_mb.bf16"]["value"]
    assert not list(tmp_path.rglob("*.safetensors")) and "is there in" in capsys.readouterr().out


def served(same, margins, of=20):
    other = [[1]] * same + [[2]] * (of - same)
    return Served([[1]] * of, other, [0.1] * of, margins)


@pytest.mark.parametrize(
    ("one", "good", "holds"),
    [
        (served(20, []), 20, True),
        (served(19, [3.0]), 19, True),
        (served(18, [0.01, 3.0]), 18, False),
        (served(10, [None] * 10), 10, False),
    ],
)
def test_vllm_has_to_answer_as_we_do(results, model, tokenizer, tmp_path, monkeypatch, one, good, holds):
    monkeypatch.setattr(files_, "build_root", lambda: tmp_path)
    monkeypatch.setattr(files_.vllm_baseline, "installed", lambda: True)
    monkeypatch.setattr(files_, "serve", lambda *given: one)
    eight = integer.install(copy_of(model), 8)
    files_.show_vllm(results, {"w8a8": eight}, tokenizer, SIZES)
    assert results.invariants["quantization.vllm_serves_checkpoint"] == {"holds": holds, "count": good, "of": 20}
    assert results.metrics["quantization.vllm_identical_share.w8a8"]["value"] == one.same / 20


def test_a_checkpoint_that_vllm_refuses_breaks_the_invariant(results, model, tokenizer, tmp_path, monkeypatch):
    def refuses(*given):
        raise CourseError("vLLM stopped with code 1")

    monkeypatch.setattr(files_, "build_root", lambda: tmp_path)
    monkeypatch.setattr(files_.vllm_baseline, "installed", lambda: True)
    monkeypatch.setattr(files_, "serve", refuses)
    files_.show_vllm(results, {"w8a8": integer.install(copy_of(model), 8)}, tokenizer, SIZES)
    assert not results.invariants["quantization.vllm_serves_checkpoint"]["holds"]


def test_vllm_is_left_out_with_the_reason(results, capsys):
    files_.show_vllm(results, {}, None, QUANTIZATION["smoke"])
    assert "vLLM is left out under this profile" in capsys.readouterr().out and not results.invariants


# ---- 02b


@pytest.fixture(scope="module")
def layer(model, texts):
    name, linear = next(iter(observed_linears(model).items()))
    return name, linear.weight.detach(), observe(model, texts.calibration, Hessian, {name: linear})[name].matrix


def test_by_hand(capsys):
    of_gptq.by_hand([0.4, 0.4], 0.9)
    out = capsys.readouterr().out
    assert "0.4 and 0.4 become 0 and 0, squared error of the output 0.608" in out
    assert "0.4 and 0.4 become 0 and 1, squared error of the output 0.088" in out


def test_states_end_with_what_is_rounded(layer):
    _, weight, hessian = layer
    states = of_gptq.states_of(weight[0, :5], hessian[:5, :5], 3)
    assert len(states) == 6 and states[0] == weight[0, :5].tolist()
    for place in range(5):
        assert all(state[place] == states[-1][place] for state in states[place + 1 :])
    of_gptq.draw_row(weight, hessian)
    of_gptq.draw_together(hessian)


def test_the_errors_are_the_outputs_or_not(results, layer):
    _, weight, hessian = layer
    factor, grid = of_gptq.inverse_factor(hessian), integer.weight_grid(weight, 3)
    codes, errors = of_gptq.round_columns(weight, factor, [grid] * weight.shape[1])
    of_gptq.check_errors(results, weight, grid.decode(codes), errors, hessian)
    assert results.invariants["gptq.errors_are_the_outputs"]["holds"]
    of_gptq.check_errors(results, weight, grid.round(weight), errors, hessian)
    assert not results.invariants["gptq.errors_are_the_outputs"]["holds"]


def test_one_layer_by_bits_and_by_texts(results, model, layer, texts, capsys):
    name, weight, hessian = layer
    ratios = of_gptq.show_layer(results, weight, hessian)
    assert ratios[3, "channel"] > 1 and (3, 64) not in ratios  # rows of 32
    assert results.metrics["gptq.output_error_ratio.3bit"]["value"] == ratios[3, "channel"]
    hessians = of_gptq.hessians_by_count(model, name, texts.calibration)
    assert list(hessians) == [1, 2]
    of_gptq.draw_calibration(results, weight, hessians, hessian)
    assert "plain rounding" in capsys.readouterr().out


def test_whole_models_are_compared(results, model, tokenizer, texts, capsys):
    by_bits = {3: of_gptq.quantized_models(results, model, texts.calibration, 3)}
    of_gptq.compare_models(results, model, by_bits, texts)
    of_gptq.draw_layer_errors(model, by_bits, [[*p, *a] for p, a in texts.pairs])
    of_gptq.show_answers_of(results, model, by_bits[3], tokenizer, texts, SIZES, 3)
    assert {
        "gptq.perplexity.gptq.3bit",
        "gptq.perplexity_ratio.3bit",
        "gptq.answers_broken.rtn.3bit",
        "gptq.seconds.3bit",
    } <= set(results.metrics)
    assert "GPTQ's error is the smaller one in" in capsys.readouterr().out


# ---- 02c


def test_moving_scales_leaves_the_function_and_rounding_does_not(results, model, texts):
    outlying = of_smoothquant.with_outliers(model, step=8)
    moved = {"outliers": outlying, "smoothed": of_smoothquant.smoothed(outlying, texts.calibration)}
    of_smoothquant.check_same_function(results, moved, model, texts.calibration)
    assert results.invariants["smoothquant.same_function"] == {"holds": True, "count": 4, "of": 4}
    of_smoothquant.check_same_function(results, {"rounded": w8a8(copy_of(model))}, model, texts.calibration)
    assert not results.invariants["smoothquant.same_function"]["holds"]


def test_smoothing_is_compared_on_both_models(results, model, tokenizer, texts, capsys):
    pair = {"as it is": model, "with outliers": of_smoothquant.with_outliers(model, step=8)}
    best = of_smoothquant.draw_sweep(results, pair, texts.calibration, texts.calibration)
    found = of_smoothquant.show_arms(results, pair, texts.calibration, texts, best)
    assert found["with outliers", "float32"].value == pytest.approx(found["as it is", "float32"].value, rel=1e-3)
    broken, _ = of_smoothquant.show_answers(results, pair, model, tokenizer, texts, best, SIZES)
    assert set(broken) == set(pair)
    of_smoothquant.read_guess(results, {"with outliers": 1}, 4, 20.0)
    assert results.metrics["smoothquant.broken_per_hundred.w8a8.with_outliers"]["value"] == 25
    of_smoothquant.read_guess(results, broken, 0, 20.0)
    out = capsys.readouterr().out
    assert "you guessed 20" in out and "No answer was right before" in out
    sizes = observe(model, texts.calibration)
    name = of_smoothquant.most_uneven(sizes, model)
    columns = model.get_submodule(name).weight.detach().abs().amax(0)
    of_smoothquant.draw_before_and_after(sizes[name].absmax, columns, columns, name)


# ---- 02d


def test_a_step_by_hand_is_autograds_and_another_is_not(results):
    of_qat.compare_with_autograd(results, straight_through_step)
    assert results.invariants["qat.step_equals_autograd"]["holds"]
    of_qat.compare_with_autograd(results, lambda w, x, y, bits, lr: straight_through_step(w, x, y, bits, 2 * lr))
    assert results.invariants["qat.step_equals_autograd"]["count"] == 0


def test_fake_quantization_is_torchaos(results, monkeypatch):
    of_qat.compare_with_torchao(results)
    assert results.invariants["qat.equals_torchao"]["holds"]
    real = of_qat.straight_through
    monkeypatch.setattr(of_qat, "straight_through", lambda weight, bits: real(weight, bits - 1))
    of_qat.compare_with_torchao(results)
    assert not results.invariants["qat.equals_torchao"]["holds"]


def test_training_a_layer_beats_plain_rounding(capsys):
    of_qat.draw_layer(straight_through_step)
    out = capsys.readouterr().out
    plain, fed, trained = map(float, re.findall(r"([\d.]+) %", out))
    assert trained < 0.7 * plain and fed < plain and "calibration is the better way" in out
    of_qat.draw_layer(lambda weight, *given: weight)  # nothing learns
    plain, _, trained = map(float, re.findall(r"([\d.]+) %", capsys.readouterr().out))
    assert trained == plain


def test_a_short_training_is_compared(results, model, tokenizer, texts, capsys):
    pairs = of_qat.training_pairs(tokenizer, 4)
    made, losses = of_qat.train_models(results, model, pairs, texts.calibration, 3, SIZES, 1e-3, 0)
    assert set(made) == set(of_qat.WORDS) and len(losses) == SIZES.training
    of_qat.draw_losses(losses, 3)
    of_qat.compare_trained(results, model, made, texts, 3)
    of_qat.show_trained_answers(results, model, made, tokenizer, texts, SIZES, 3, 0.5)
    assert {"qat.perplexity.qat.3bit", "qat.perplexity_ratio.gptq.3bit", "qat.answers_broken.qat.3bit"} <= set(
        results.metrics
    )
