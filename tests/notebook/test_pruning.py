"""What notebook 04 prints of results is made from them, and each check sees a plausible mistake."""

import copy
import json
import re
from functools import partial
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from helpers import models
from helpers.course.notebooks import from_source, front_matter, source_files
from helpers.measuring.cost_model import StepTime
from helpers.measuring.timing import Comparison
from helpers.notebook import (
    pruning_layers,
    pruning_library,
    pruning_quality,
    pruning_rescaling,
    pruning_sizes,
    pruning_speed,
    pruning_structured,
)
from helpers.notebook.answers import Judged
from helpers.notebook.metric_words import words_of
from helpers.notebook.plots import use_style
from helpers.notebook.pruning_quality import Exam, Outcome
from helpers.notebook.pruning_sizes import PRUNING
from helpers.notebook.results import Results
from helpers.text_to_sql.example import Example
from helpers.training.fine_tune_llm import Arguments
from helpers.weights.pruning.magnitude import magnitude, magnitude_mask, magnitude_two_of_four
from helpers.weights.pruning.structured import Plan, importance, plan, smaller
from helpers.weights.pruning.wanda import wanda, wanda_mask, wanda_two_of_four
from helpers.weights.quantization.rescaling import rescale_norm
from tests.tiny_folders import target_and_draft
from tests.tiny_models import tiny

plt.switch_backend("Agg")
PROMPTS = [[5, 17, 60, 8, 33, 9], [2, 40, 7]]
PAIRS = [([5, 17, 60], [8, 33]), ([2, 40], [7, 9, 4])]
TABLE = "CREATE TABLE ship (name TEXT, age INTEGER)"
EXAMPLES = [
    Example("1", TABLE, "How many ships?", "SELECT COUNT(*) FROM ship"),
    Example("2", TABLE, "Which ships are older than 5?", "SELECT name FROM ship WHERE age > 5"),
]
OF_SIZE, OF_SCORE = partial(magnitude_mask, sparsity=0.5), partial(wanda_mask, sparsity=0.5)


@pytest.fixture(autouse=True)
def _figures():
    use_style()
    yield
    plt.close("all")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))
    machine = {"cpu": "a", "cores": 2, "memory_gib": 8, "accelerator": None}
    return Results("04_wanda_pruning", "smoke", tmp_path, [], "0" * 16, "1" * 16, machine)


def printed(capsys):
    return " ".join(capsys.readouterr().out.split())


def outcome(right, perplexity=1.5, texts=None):
    right = [bool(r) for r in right]
    return Outcome(Judged([None] * len(right), texts or [str(r) for r in right], right), perplexity, 3)


def test_an_exam_is_taken_by_the_fused_step(monkeypatch):
    decoded = []

    class Tokenizer:
        chat_template, bos_token, eos_token_id = None, "", 2

        def __call__(self, text, add_special_tokens=False):
            return SimpleNamespace(input_ids=[ord(c) % 90 + 3 for c in text][-12:])

        def batch_decode(self, answers, skip_special_tokens=True):
            decoded.append(answers)
            return [EXAMPLES[0].answer] * len(answers)

    sizes = SimpleNamespace(pairs=1, answers=2, longest=4)
    exam = Exam.of(Tokenizer(), EXAMPLES, sizes)
    model = tiny().float()
    one = exam.take(model)
    assert one.judged.right == [True, False] and one.num_pairs == 1 and one.perplexity > 1
    assert len(decoded[0]) == 2 and all(len(answer) <= 4 for answer in decoded[0])
    assert exam.take(model).judged.texts == one.judged.texts


def test_a_model_that_the_step_does_not_take_answers_by_transformers_own_loop(monkeypatch):
    def refused(*given):
        raise pruning_quality.UnsupportedModelError("no")

    monkeypatch.setattr(pruning_quality.Judged, "by", refused)
    monkeypatch.setattr(pruning_quality, "prompt_for", lambda tokenizer, example: example.question)
    monkeypatch.setattr(pruning_quality, "answer_in_batches", lambda *given, **named: [e.answer for e in EXAMPLES])
    assert Exam(None, EXAMPLES, PAIRS, 4).take(tiny().float()).judged.right == [True, True]


def test_outcomes_are_compared_with_the_dense_model_question_by_question(results, capsys):
    dense = outcome([1, 1, 1, 0] * 5)
    outcomes = {
        ("magnitude", 0.5): outcome([0, 0, 1, 1] * 5, 9.0),
        ("wanda", 0.5): outcome([1, 1, 1, 0] * 5, 1.6),
        ("wanda", "2:4"): outcome([1, 1, 0, 0] * 5, 2.0),
    }
    pruning_quality.show_dense(results, dense)
    pruning_quality.show_outcomes(results, dense, outcomes)
    value = {key: row["value"] for key, row in results.metrics.items()}
    assert value["pruning.execution_accuracy.dense"] == 0.75 and value["pruning.execution_accuracy.wanda_2_4"] == 0.5
    assert (value["pruning.answers_fixed.magnitude_50"], value["pruning.answers_broken.magnitude_50"]) == (5, 10)
    assert results.metrics["pruning.execution_accuracy.wanda_50"]["n"] == 20
    assert results.metrics["pruning.perplexity.wanda_50"] == {
        "value": 1.6,
        "unit": "tokens",
        "kind": "measured",
        "n": 3,
    }
    capsys.readouterr()
    pruning_quality.read_outcomes(dense, outcomes, 0.4)
    out = printed(capsys)
    assert "50%: from magnitude to Wanda 10 fixed, 5 broken, of 20: no difference shown" in out
    assert "magnitude: up to 50% can't be told from" in out and "75% right; you guessed 40%" in out
    outcomes["magnitude", 0.5] = outcome([0, 0, 0, 0] * 5, 99.0)
    pruning_quality.read_outcomes(dense, outcomes, 0.4)
    out = printed(capsys)
    assert "Wanda is better" in out and "magnitude: even the least sparsity tried is worse than" in out
    pruning_quality.draw_outcomes(dense, outcomes, "bfloat16")
    assert [len(line.get_xdata()) for line in plt.gcf().axes[1].lines] == [2, 2]


def test_a_sparsity_behind_a_harmful_one_is_not_called_harmless(capsys):
    dense, lost = outcome([1] * 20), outcome([0] * 20)
    pruning_quality.read_outcomes(dense, {("wanda", 0.3): dense, ("wanda", 0.4): lost, ("wanda", 0.6): dense}, 0.5)
    assert "wanda: up to 30% can't be told" in printed(capsys)


def test_keys_are_words():
    assert pruning_quality.key_of("wanda", 0.6) == "wanda_60"
    assert pruning_quality.key_of("magnitude", "2:4") == "magnitude_2_4"
    assert words_of("pruning.execution_accuracy.wanda_60") == (
        "test questions answered rightly (Wanda, 60 % of the weights gone)"
    )
    assert "(Wanda, 2:4)" in words_of("pruning.perplexity.wanda_2_4")


def test_rows_are_counted_and_a_mask_over_the_layer_is_seen(results, capsys):
    model = tiny().float()
    half = pruning_quality.prune_and_time(results, lambda: wanda(copy.deepcopy(model), PROMPTS, OF_SCORE), 2)
    pruning_quality.check_rows(results, half)
    assert results.metrics["pruning.sparsity.wanda_50"]["value"] == 0.5
    assert results.invariants["pruning.rows_lose_their_share"]["holds"]
    assert results.metrics["pruning.seconds"]["n"] == 2 and "2 calibration prompts" in printed(capsys)
    pruning_quality.check_rows(results, magnitude(copy.deepcopy(model), OF_SIZE))
    assert not results.invariants["pruning.rows_lose_their_share"]["holds"]
    assert results.metrics["pruning.sparsity.wanda_50"]["value"] == pytest.approx(0.5, abs=1e-3)


def test_outliers_are_found_where_they_are(results, capsys):
    model = rescale_norm(tiny().float(), 64.0, [7])
    pruning_layers.show_outliers(results, model, PROMPTS)
    out = printed(capsys)
    assert "input 7 of q_proj of layer" in out and results.metrics["pruning.largest_input_over_median"]["value"] > 20
    labels = [text.get_text() for text in plt.gcf().axes[0].get_legend().get_texts()]
    assert labels == ["read by q_proj", "read by o_proj", "read by gate_proj", "read by down_proj"]


def test_layer_errors_are_written_for_each_method(results, capsys):
    model = tiny().float()
    half = {
        "magnitude": magnitude(copy.deepcopy(model), OF_SIZE),
        "wanda": wanda(copy.deepcopy(model), PROMPTS, OF_SCORE),
    }
    pruning_layers.show_layer_errors(results, model, half, PROMPTS)
    out = printed(capsys)
    assert "of 14 layers" in out
    assert 0 < results.metrics["pruning.layer_error.wanda"]["value"] < 1
    assert results.metrics["pruning.layer_error.magnitude"]["n"] == 14


def test_the_toy_is_as_by_hand(capsys):
    weight, norms = pruning_layers.toy()
    masks = {"magnitude": magnitude_mask(weight, 0.5), "wanda": wanda_mask(weight, norms**2, 0.5)}
    pruning_layers.show_toy_errors(weight, norms, masks)
    assert "magnitude keeps 6 of 12; squared error of the outputs: 141" in (out := printed(capsys))
    assert "wanda keeps 6 of 12; squared error of the outputs: 38" in out


def test_rescaling_is_read_from_masks_and_answers(results, capsys):
    model = tiny().float()
    columns = pruning_rescaling.outlier_columns(model, 0.1, 0)
    assert len(columns) == 6 == len(set(columns)) and columns == pruning_rescaling.outlier_columns(model, 0.1, 0)
    other = rescale_norm(copy.deepcopy(model), 64.0, columns)
    pruning_rescaling.show_same_function(model, other, PROMPTS)
    assert "logits change by 0 at most" in printed(capsys)

    def both(m):
        return {
            "magnitude": magnitude(copy.deepcopy(m), OF_SIZE),
            "wanda": wanda(copy.deepcopy(m), PROMPTS, OF_SCORE),
        }

    half, again = both(model), both(other)
    pruning_rescaling.compare_masks(results, half, again)
    row = results.invariants["pruning.wanda_masks_unchanged_by_rescaling"]
    assert row["holds"] and row["of"] == 2 * (4096 + 2048 + 2048 + 4096 + 3 * 6144)
    pruning_rescaling.compare_masks(results, {"wanda": half["wanda"]}, {"wanda": again["magnitude"]})
    assert not results.invariants["pruning.wanda_masks_unchanged_by_rescaling"]["holds"]
    capsys.readouterr()
    before = {m: outcome([1, 1], texts=["a", "b"]) for m in half}
    after = {"magnitude": outcome([1, 0], texts=["a", "c"]), "wanda": outcome([1, 1], texts=["a", "b"])}
    pruning_rescaling.show_kept(results, before, after)
    value = {key: row["value"] for key, row in results.metrics.items()}
    assert value["pruning.answers_kept_after_rescaling.wanda"] == 1
    assert value["pruning.answers_kept_after_rescaling.magnitude"] == 0.5
    assert "Wanda prunes the function" in printed(capsys)


def test_plans_are_compared_and_the_better_one_goes_on(capsys, monkeypatch):
    model, perplexities = tiny().float(), iter((1.0, 3.0, 2.0))  # before, and by each plan
    monkeypatch.setattr(pruning_structured, "perplexity", lambda logits, pairs: next(perplexities))
    matters = importance(model, PAIRS)
    pruning_structured.draw_importance(matters)
    plans = {"heads and channels": plan(model, 0.3), "hardly any": Plan(2, 95, 0.01)}
    assert pruning_structured.compare_plans(model, matters, plans, PAIRS) == "hardly any"
    out = printed(capsys)
    assert "1 KV heads and 64 channels stay" in out and "perplexity 3.000" in out
    assert "On go 'hardly any'" in out and "least important 30%" in out


def test_a_model_that_can_not_be_cut_says_why(capsys):
    assert pruning_structured.can_be_cut(tiny()) and not pruning_structured.can_be_cut(tiny("falcon"))
    assert "Left out: Heads and channels are removed from models with" in printed(capsys)


@pytest.mark.parametrize("profile", list(PRUNING))
def test_the_training_is_one_that_the_script_takes(results, monkeypatch, tmp_path, profile, capsys):
    from helpers.notebook import tuning

    folder = target_and_draft(tmp_path) / "target"
    model, tokenizer = models.load(folder)
    small = smaller(model, importance(model, PAIRS), plan(model, 0.3, multiple=8))
    launched = {}

    def launch(script, model_id, arguments, inside):
        Arguments(model_id=model_id, **arguments)  # refuses what it does not know
        launched.update(model_id=model_id, inside=inside, **arguments)
        made = tmp_path / "made"
        again, _ = models.load(model_id)
        again.save_pretrained(made / "merged"), tokenizer.save_pretrained(made / "merged")
        (made / "report.json").write_text(json.dumps({"steps": 3, "seconds": 4.0, "loss": [2.0, 1.0]}))
        return made

    monkeypatch.setattr(tuning, "launch", launch)
    monkeypatch.setattr(tuning, "_few_examples", lambda: tmp_path / "few.jsonl")
    sizes = PRUNING[profile]
    lesson = pruning_lesson(results, profile)
    recovered = pruning_structured.recover(lesson, small, tokenizer, 1e-3, **sizes.recovery)
    assert launched["merge_weights"] and launched["lr"] == 1e-3 and launched["inside"] == (profile == "smoke")
    if "epochs" in sizes.recovery:
        assert launched["max_steps"] == -1 and launched["epochs"] == 1.0
    ids = torch.tensor([[5, 17, 60]])
    with torch.no_grad():
        torch.testing.assert_close(recovered(ids).logits, small(ids).logits)
    assert "3 steps in 4 s, loss 2.000, at the end 1.000" in printed(capsys)


def pruning_lesson(results, profile):
    from helpers.notebook.lesson import Lesson
    from helpers.notebook.profiles import PROFILES

    return Lesson("04_wanda_pruning", profile, "cpu", "base", 0, PROFILES[profile], results)


def test_structure_is_read_from_the_answers(results, capsys):
    dense, cut, back = outcome([1] * 20), outcome([0] * 20, 80.0), outcome([1] * 10 + [0] * 10, 2.0)
    pruning_structured.show_structured(results, dense, cut, back)
    value = {key: row["value"] for key, row in results.metrics.items()}
    assert value["pruning.execution_accuracy.structured_30"] == 0.5
    assert value["pruning.execution_accuracy.structured_30_untrained"] == 0
    assert value["pruning.answers_broken.structured_30"] == 10
    out = printed(capsys)
    assert "The training brought answers back (10 fixed, 0 broken, of 20)" in out and "still worse" in out
    pruning_structured.show_structured(results, dense, cut, cut)
    assert "brings no answers back" in printed(capsys)
    pruning_structured.show_structured(results, dense, cut, dense)
    assert "It can't be told from what it was cut from" in printed(capsys)


EQUATION = StepTime("sum", 1e-4, {"float32": 3e10, "bfloat16": 3e10}, {"float32": 1e11, "bfloat16": 4e11})


def test_smaller_shapes_are_predicted_before_they_are_timed(results, capsys):
    config = pruning_speed.smaller_shape("llama-50m", 0.3, "bfloat16", "meta").config
    assert config.num_key_value_heads == 3 and config.num_attention_heads == 9 and config.head_dim == 64
    predicted = pruning_speed.predict_structured(results, EQUATION, "llama-50m", 0.3, "bfloat16")
    assert 1.1 < predicted[1] < 1 / 0.7
    assert results.metrics["pruning.predicted_structured_decode_speedup"]["value"] == predicted[1]
    speed = {
        (name, n): Comparison(ratio, ratio - 0.02, ratio + 0.02, 5)
        for name, ratio in ((pruning_speed.ZEROS, 1.0), (pruning_speed.SMALLER, 1.3))
        for n in pruning_speed.NUM_TOKENS
    }
    pruning_speed.show_speed(results, speed, "llama-50m", predicted, 1.5)
    assert results.metrics["pruning.structured_decode_speedup"]["value"] == 1.3
    assert {"pruning.zeros_decode_speedup", "pruning.structured_decode_speedup.rows_32"} <= set(results.metrics)
    out = printed(capsys)
    assert "0 was not noticed by the dense kernels" in out and "you guessed 1.5" in out
    speed[pruning_speed.ZEROS, 1] = Comparison(1.4, 1.3, 1.5, 5)
    pruning_speed.show_speed(results, speed, "llama-50m", predicted, 1.5)
    assert "0 was noticed" in printed(capsys)


def test_steps_of_pruned_models_are_timed_in_turns(capsys):
    model = models.shape_only("llama-tiny")
    others = {
        pruning_speed.ZEROS: lambda: pruning_speed.half_zeros(copy.deepcopy(model)),
        pruning_speed.SMALLER: lambda: pruning_speed.smaller_shape("llama-tiny", 0.3, "float32"),
    }
    speed = pruning_speed.time_against_dense(lambda: model, others, 0, 2)
    assert set(speed) == {(name, n) for name in others for n in pruning_speed.NUM_TOKENS}
    zeros = others[pruning_speed.ZEROS]()
    shares = [(linear.weight == 0).float().mean().item() for linear in pruning_speed.observed_linears(zeros).values()]
    assert all(0.4 < share < 0.6 for share in shares) and "half zeros a step of 1 token" in printed(capsys)


def test_sparse_kernels_are_read_from_their_times(results, monkeypatch, capsys):
    def seconds(size, sparsities, counts, rounds, device, turns):
        times = {(f"{s:g}", n): [0.001 + 0.01 * (1 - s)] * 3 for s in sparsities for n in counts}
        return times | {("dense", n): [0.0021] * 3 for n in counts}

    monkeypatch.setattr(pruning_speed, "csr_seconds", seconds)
    pruning_speed.show_csr(results, 64, 3, 0, "cpu")
    out = printed(capsys)
    assert "1 token: faster than dense from 90% zeros on" in out
    assert results.metrics["pruning.csr_speedup.sparsity_50.rows_1"]["value"] < 1
    pruning_speed.show_two_of_four(results, 64, 3, "cpu")
    assert "Left out: 2:4 needs the sparse units" in printed(capsys)
    monkeypatch.setattr(pruning_speed, "why_no_sparse_units", lambda device: "")
    times = {(way, n): [t] * 3 for way, t in (("dense", 2.0), ("2:4", 1.0)) for n in (1, 32, 256, 4096)}
    monkeypatch.setattr(pruning_speed, "two_of_four_seconds", lambda *given, **named: times)
    pruning_speed.show_two_of_four(results, 64, 3, "cuda")
    assert results.metrics["pruning.two_of_four_speedup.rows_4096"]["value"] == 2


def test_a_torch_without_sparse_products_is_no_end(results, monkeypatch, capsys):
    from helpers.errors import CourseError

    def none(*given):
        raise CourseError("torch can't multiply sparse weights here (x): leave them out.")

    monkeypatch.setattr(pruning_speed, "csr_seconds", none)
    pruning_speed.show_csr(results, 64, 3, 0, "cpu")
    assert "Left out: torch can't multiply" in printed(capsys) and not results.metrics


def test_files_are_counted_and_one_that_loses_numbers_is_seen(results, monkeypatch, capsys):
    model = tiny().bfloat16()
    half, four = magnitude(copy.deepcopy(model), OF_SIZE), magnitude(copy.deepcopy(model), magnitude_two_of_four)
    pruning_speed.show_storage(results, model, half, four)
    ratios = {key: row["value"] for key, row in results.metrics.items()}
    assert ratios["pruning.bytes_ratio.zeros_written_out"] == 1
    assert ratios["pruning.bytes_ratio.bitmask"] == pytest.approx(9 / 16, rel=0.1)
    assert ratios["pruning.bytes_ratio.two_of_four"] == pytest.approx(9 / 16, rel=0.1)
    assert ratios["pruning.bytes_ratio.csr"] > 1.4
    assert results.invariants["pruning.files_restore_weights"] == {"holds": True, "count": 70, "of": 70}
    monkeypatch.setattr(
        pruning_speed, "load_weights", lambda shapes, *more: {n: torch.zeros(s) for n, s in shapes.items()}
    )
    pruning_speed.show_storage(results, model, half, four)
    assert not results.invariants["pruning.files_restore_weights"]["holds"]


def test_the_libraries_masks_are_ours_and_others_are_seen(results, monkeypatch, capsys):
    model = tiny().float()
    name, weight, x = pruning_library.layer_and_input(model, PROMPTS[0])
    assert name.startswith("model.layers.") and x.shape == (6, weight.shape[1])
    pruning_library.compare_magnitude(results, weight)
    pruning_library.compare_wanda(results, weight, x)
    assert results.invariants["pruning.magnitude_equals_torch"]["holds"]
    assert results.invariants["pruning.two_of_four_equals_torchao"]["holds"]
    assert "with the norm itself" in printed(capsys)
    monkeypatch.setattr(pruning_library, "magnitude_mask", lambda w, s: ~magnitude_mask(w, s))
    pruning_library.compare_magnitude(results, weight)
    assert not results.invariants["pruning.magnitude_equals_torch"]["holds"]
    wrong = partial(wanda_two_of_four, keep=lambda scores: magnitude_two_of_four(weight))
    monkeypatch.setattr(pruning_library, "wanda_two_of_four", wrong)
    pruning_library.compare_wanda(results, weight, x)
    assert not results.invariants["pruning.two_of_four_equals_torchao"]["holds"]


def test_ties_are_no_difference(results, capsys):
    weight = torch.tensor([[1.0, -1.0, 1.0, 2.0]])
    pruning_library.compare_magnitude(results, weight)
    assert results.invariants["pruning.magnitude_equals_torch"]["holds"] and "3 weights are tied" in printed(capsys)


def test_another_model_is_pruned_itself(results, tmp_path, capsys, monkeypatch):
    folder = target_and_draft(tmp_path) / "target"
    lesson = SimpleNamespace(model_id=str(folder), device="cpu", results=results)
    for native, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(
            pruning_sizes, "describe_machine", lambda native=native: SimpleNamespace(bf16_is_native=native)
        )
        model, _, used = pruning_sizes.fine_tuned(lesson)
        assert used == dtype and str(model.dtype) == f"torch.{dtype}"
    assert "is pruned itself" in printed(capsys)


SOURCE = next(path for path in source_files() if path.stem == "04_wanda_pruning")
HELPERS = [
    "pruning_layers",
    "pruning_library",
    "pruning_quality",
    "pruning_rescaling",
    "pruning_speed",
    "pruning_structured",
]


def test_every_profile_tries_the_half_and_what_the_results_must_have():
    for name, sizes in PRUNING.items():
        assert 0.5 in sizes.sparsities and sizes.pairs >= 1 and sizes.layer % 4 == 0
        if name != "smoke":
            assert {0.5, 0.6, 0.7} <= set(sizes.sparsities)
    assert PRUNING["full"].calibration == 128 and PRUNING["full"].answers == 450


def test_the_notebook_is_short_and_its_parts_are_there():
    notebook = from_source(SOURCE)
    assert len(notebook.cells) <= 50
    for cell in notebook.cells:
        if cell.cell_type == "code" and not cell.source.startswith("# helpers/"):
            assert len(cell.source.splitlines()) <= 20, cell.source
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    assert tags == ["card", "predict", "parameters", "build", "library", "measure", "limits", "decide"]


def test_the_headline_names_metrics_that_are_written():
    keys = set(re.findall(r"\{pruning\.(\w+)", front_matter("04_wanda_pruning").headline))
    texts = [(SOURCE.parents[2] / "helpers" / "notebook" / f"{name}.py").read_text() for name in HELPERS]
    assert all(any(key in text for text in texts) for key in keys)


def test_predictions_are_saved_before_what_they_are_about_is_measured():
    text = SOURCE.read_text()
    order = [
        text.index(word) for word in ("results.prediction(", "predict_structured(results", "exam.take(", "time_shape(")
    ]
    assert order == sorted(order)
