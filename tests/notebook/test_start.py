"""What notebooks 00 and 00c print of results is made from them, and what they write keeps the contract."""

import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest

from helpers.decoding.completion import Completion
from helpers.measuring.cost_model import Measured, Shape, StepTime
from helpers.measuring.fitted_equation import Fitted, load_equation
from helpers.measuring.timing import Timed
from helpers.notebook import answers, equation, generate_comparison, step_times
from helpers.notebook.plots import use_style
from helpers.profiling.against_generate import AS_IT_COMES, OURS, SAME_LAYERS
from helpers.profiling.model_steps import Steps
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.example import Example

NOTEBOOK = "00_start_here"

plt.switch_backend("Agg")
SHAPE = Shape(30, 134_000_000, 538_000_000, 46_080)
EQUATION = StepTime("sum", 4e-4, {"float32": 3e10, "bfloat16": 3e10}, {"float32": 1e11, "bfloat16": float("inf")})
TABLE = "CREATE TABLE ship (name TEXT, age INTEGER)"
EXAMPLES = [
    Example("1", TABLE, "How many ships?", "SELECT COUNT(*) FROM ship"),
    Example("2", TABLE, "Which ships are older than 5?", "SELECT name FROM ship WHERE age > 5"),
]


@pytest.fixture(autouse=True)
def _figures():
    use_style()
    yield
    plt.close("all")


def steps_of(name, milliseconds, dtype="float32"):
    return Steps(name, SHAPE, dtype, 128, {n: [ms / 1e3] * 3 for n, ms in milliseconds.items()})


STEPS = {
    "transformers": steps_of("transformers", {1: 60, 8: 90, 32: 140}),
    "fused": steps_of("fused", {1: 30, 8: 36, 32: 74}),
}


def test_accuracy_is_written_with_its_interval_where_none_or_all_are_right(results, capsys):
    texts = {"none": ["no idea", ""], "all": [e.answer for e in EXAMPLES], "half": [EXAMPLES[0].answer, "SELECT 1"]}
    judged = {name: answers.Judged.of(EXAMPLES, said) for name, said in texts.items()}
    answers.show_accuracy(results, {(f"start.{name}", name): one for name, one in judged.items()})
    assert {key: row["value"] for key, row in results.metrics.items()} == {
        "start.none": 0,
        "start.all": 1,
        "start.half": 0.5,
    }
    assert "2 of   2 right: 100%" in capsys.readouterr().out
    answers.read_accuracy(judged["none"], judged["all"], judged["half"])
    assert "overlap" in capsys.readouterr().out


def test_the_difference_is_claimed_only_where_intervals_lie_apart(capsys):
    def share(good, n):
        return answers.Judged(EXAMPLES, [], [True] * good + [False] * (n - good))

    answers.read_accuracy(share(2, 100), share(80, 100), share(50, 100))
    out = capsys.readouterr().out
    assert "lie apart" in out and "harder" in out
    answers.read_accuracy(share(2, 100), share(80, 100), share(78, 100))
    assert "can't be told apart" in capsys.readouterr().out


def test_wrong_answers_and_mistakes_are_shown(capsys):
    judged = answers.Judged.of(EXAMPLES, [EXAMPLES[0].answer, "```sql\nSELECT name FROM ship\n```"])
    answers.show_wrong(judged)
    answers.show_mistakes(EXAMPLES[1])
    out = capsys.readouterr().out
    assert "How many ships?" not in out and "wanted:   SELECT name FROM ship WHERE age > 5" in out
    assert out.count("counts as wrong: SELECT") == 4
    assert max(map(len, out.splitlines())) <= 100
    answers.show_families(judged, "People's questions")
    assert "'rows by their conditions': 0 of 1 right" in capsys.readouterr().out


def test_brevity_is_claimed_only_where_it_is_so(capsys):
    long, short = Completion(3, list(range(100)), "Well."), Completion(3, list(range(20)), "SELECT 1;")
    fenced = Completion(3, list(range(60)), "You can use:\n```sql\nSELECT 2\n```\nThis returns all.")

    def read(base):
        answers.read_side_by_side({"base": base, "fine-tuned": short})
        return " ".join(capsys.readouterr().out.split())

    assert "100 tokens against 20" in (said := read(long)) and "no query" in said and "around" not in said
    assert "60 tokens against 20" in (said := read(fenced)) and "around its SQL" in said and "no query" not in said
    assert read(short) == "20 tokens against 20, and each of them cost a step."


def test_only_queries_count_in_the_length_of_the_prose(results, capsys):
    class Words:
        def __call__(self, text, add_special_tokens):
            return SimpleNamespace(input_ids=text.split())

    texts = ["You can use:\n```sql\nSELECT age FROM ship\n```\nThis is it.", "```\nThis creates a table\n```", "Ten."]
    answers.show_length(results, answers.Judged(EXAMPLES, texts, [False] * 3), Words())
    assert results.metrics["start.chatty_length_ratio"] == {
        "value": 12 / 4,
        "unit": "ratio",
        "kind": "measured",
        "n": 1,
    }
    assert "1 of the base's 3 answers hold a query." in capsys.readouterr().out


def test_the_equation_is_kept_for_later_notebooks(results, tmp_path, capsys):
    fitted = Fitted(EQUATION, "llama-150m", 0.31, 0.98, 24)
    equation.show_fit(fitted, 3.5e10, {"float32": 2e11, "bfloat16": 4e11})
    equation.record_equation(results, fitted)
    assert load_equation("smoke", tmp_path) == fitted
    assert "start.equation.rate.bfloat16" not in results.metrics and results.metrics["start.equation_r2"]["n"] == 24
    out = capsys.readouterr().out
    assert "add up" in out and "too fast to be seen" in out and "Take its predictions as rough" in out
    points = [Measured("a", SHAPE, d, n, 128, EQUATION(SHAPE, d, n, 128)) for d in EQUATION.rate for n in (1, 32)]
    equation.draw_fit(fitted, points)
    lesson = SimpleNamespace(profile="smoke", device="cpu", results=results)
    assert equation.equation_here(lesson) == EQUATION and "notebook 00 fitted" in capsys.readouterr().out


def test_without_notebook_00_the_equation_is_rough_and_says_so(results, monkeypatch, capsys):
    monkeypatch.setattr(equation.probes, "bandwidth", lambda device: 2e10)
    monkeypatch.setattr(equation.probes, "matmul_rate", lambda dtype, device: 1e11)
    rough = equation.equation_here(SimpleNamespace(profile="smoke", device="cpu", results=results))
    assert rough.overhead == 0 and rough.bandwidth["bfloat16"] == 2e10
    assert "--only 00" in capsys.readouterr().out


def test_steps_are_written_and_read(results, capsys):
    step_times.note_steps(results, STEPS, 3.5e10)
    assert results.metrics["start.step_ms.fused.tokens_8"]["value"] == pytest.approx(36)
    assert results.metrics["start.bandwidth_share.fused"]["value"] == pytest.approx(538e6 / 0.03 / 3.5e10)
    assert step_times.eight_tokens(results, STEPS["fused"], "start.eight_tokens").ratio == pytest.approx(1.2)
    step_times.show_verify_cost(STEPS)
    assert "8 tokens cost 1.20 times one; up to 8 tokens" in capsys.readouterr().out
    step_times.show_roofline(STEPS, 3.5e10, 2e11)
    assert "(fused) takes 2.0 times that. The rest is overhead." in capsys.readouterr().out


def test_the_bars_name_the_largest_term_and_so_does_the_closing_sentence(capsys):
    terms = step_times.show_bars(EQUATION, STEPS)
    assert sum(terms["transformers"].values()) == pytest.approx(0.060)
    step_times.read_bars(terms)
    assert (
        "transformers: the largest term is overhead" in (out := capsys.readouterr().out) and "Fusing took away" in out
    )
    slow = StepTime("sum", 4e-4, {"float32": 1e10}, {"float32": 1e11})  # its weights alone take longer than the step
    step_times.read_bars(step_times.show_bars(slow, STEPS))
    assert "too rough" in (out := capsys.readouterr().out) and "took away" not in out
    step_times.show_limit(EQUATION, STEPS["fused"])
    assert "reading its weights" in capsys.readouterr().out
    step_times.show_limit(EQUATION, STEPS["transformers"])
    assert "starting its operations" in capsys.readouterr().out


def test_where_reading_and_computing_overlap_only_the_longer_counts():
    parts = {"overhead": 1.0, "weights": 3.0, "arithmetic": 2.0, "KV cache": 0.1}
    assert step_times.counted(parts, "max") == {"overhead": 1.0, "weights": 3.0, "KV cache": 0.1}
    assert step_times.counted(parts, "sum") == parts


def test_speed_counts_only_prompts_with_equal_answers(results, capsys):
    same = [[1, 2], [3], [4]]
    timed = {
        AS_IT_COMES: Timed([2.0, 2.0, 99.0], same),
        SAME_LAYERS: Timed([1.5, 1.5, 1.5], same),
        OURS: Timed([1.0, 1.0, 1.0], [[1, 2], [3], [5]]),
    }
    generate_comparison.show_speed(results, timed, "bfloat16")
    key = "start.decode_vs_hf_generate.bf16"
    assert results.metrics[key]["value"] == 2 and results.metrics[key]["n"] == 2
    assert results.metrics[f"{key}.same_layers"]["value"] == 1.5
    assert results.metrics["start.identical_share.bf16"]["value"] == pytest.approx(2 / 3)
    generate_comparison.show_identity(results, timed)
    assert results.invariants["start.identical_to_hf_generate"] == {"holds": False, "count": 2, "of": 3}
    assert "1.33x of it" in capsys.readouterr().out
    generate_comparison.record_answers(results, ["a", "b", "c"], timed[OURS], ["x"] * 3, [True] * 3, "float32")
    assert json.loads(json.dumps(results.prompts[0]))["tokens"] == 2


def test_the_question_that_both_models_answer_is_the_one_that_was_chosen():
    """The base answers this one in prose with a query that names a column which is not there."""
    assert load_split("handwritten")[2].question == "How many hives have a queen older than 2?"


def test_the_same_program_twice_teaches_what_noise_is(capsys):
    alone = [Timed([2.0, 2.0]), Timed([1.0, 1.0])]
    generate_comparison.show_same_twice(alone, {"it": Timed([1.0, 2.0, 1.0]), "it again": Timed([2.0, 1.0, 1.0])})
    assert "2.000 times as fast" in (out := capsys.readouterr().out) and "The interval holds 1" in out
    generate_comparison.show_same_twice(alone, {"it": Timed([1.1, 1.1]), "it again": Timed([1.0, 1.0])})
    assert "too narrow" in capsys.readouterr().out


def test_predictions_stand_beside_what_was_measured(results, capsys):
    step_times.show_eight_tokens(results, {"float32": STEPS["fused"]}, EQUATION, 8.0)
    assert results.metrics["start.eight_tokens"]["value"] == pytest.approx(1.2)
    step_times.show_answer_time(results, 0.9, [1.0, 2.0])
    assert results.metrics["start.answer_seconds.bf16"]["value"] == 1.5
    step_times.show_machine(results, 3.5e10, {"bfloat16": 2e11}, {"bfloat16": SHAPE})
    assert results.metrics["start.matmul_gflops.bfloat16"]["value"] == 200
    out = capsys.readouterr().out
    assert "your guess was 8 times" in out and "1.20 times measured" in out and "40% off" in out and "35 GB/s" in out
