"""What notebooks 03 and 03b print of results is made from them, and each check sees a plausible mistake."""

import copy
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from helpers.measuring.timing import Timed
from helpers.notebook import adapter_card, lora_parts, many_adapters, nf4_base, training_costs, tuned_answers, tuning
from helpers.notebook.answers import Judged
from helpers.notebook.plots import use_style
from helpers.notebook.results import Results
from helpers.text_to_sql.example import Example
from helpers.training.completions import IGNORED, Encoded
from helpers.training.fine_tune_llm import Arguments
from helpers.training.step_speed import COMPILED, PACKED, PLAIN, SHARED, StepTimes
from helpers.weights.adapters import lora, peft_files
from helpers.weights.adapters.lora import LoraLinear
from tests.tiny_models import tiny

plt.switch_backend("Agg")
IDS = [torch.tensor([[5, 9, 13, 2]]), torch.tensor([[7, 1, 1, 40, 3]])]


@pytest.fixture(autouse=True)
def _figures():
    use_style()
    yield
    plt.close("all")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))
    machine = {"cpu": "a", "cores": 2, "memory_gib": 8, "accelerator": None}
    return Results("03_lora_qlora", "smoke", tmp_path, [], "0" * 16, "1" * 16, machine)


@pytest.fixture
def base():
    return tiny().float()


def adapted(base, forward=LoraLinear.forward):
    ours = lora_parts.with_forward(lora.install(lora_parts.sharing_copy(base), rank=2), forward)
    return lora_parts.as_if_trained(ours, 0, size=0.5)


def unscaled(layer, x):
    return layer.linear(x) + layer.change("default", x) / layer.scaling["default"]


@pytest.mark.parametrize(("forward", "holds"), [(LoraLinear.forward, True), (unscaled, False)])
def test_a_learner_s_forward_runs_and_a_wrong_one_does_not_agree_with_peft(results, base, forward, holds):
    lora_parts.compare_with_peft(results, adapted(base, forward), base, IDS, "base")
    assert results.invariants["lora.equals_peft"] == {"holds": holds, "count": 2 * holds, "of": 2}


def test_merging_leaves_the_adapted_model_alone_and_a_wrong_merge_is_seen(results, base):
    ours = adapted(base)
    before = ours(IDS[0]).logits
    lora_parts.show_merged(results, lora_parts.merged_by(ours, lora.merged_weight), ours, IDS)
    assert results.invariants["lora.merged_equals_adapter"]["holds"]
    assert torch.equal(ours(IDS[0]).logits, before)
    wrong = lora_parts.merged_by(ours, lambda weight, a, b, scaling: weight + b @ a)
    lora_parts.show_merged(results, wrong, ours, IDS)
    assert not results.invariants["lora.merged_equals_adapter"]["holds"]


def test_the_share_of_a_rank_is_written(results, base, capsys):
    lora_parts.show_ranks(results, base, 2, ranks=(1, 4))
    shapes = lora_parts.linear_shapes(base)
    assert len(shapes) == 14  # seven in each of two layers, without the head
    numbers = sum(2 * (out + into) for out, into in shapes)
    share = numbers / sum(p.numel() for p in base.parameters())
    assert results.metrics["lora.trainable_share"]["value"] == pytest.approx(share)
    assert f"{numbers:,}" in capsys.readouterr().out


def test_savings_are_read_from_the_times(results, capsys):
    seconds = {PLAIN: [4.0, 4.2], PACKED: [2.0, 2.1], SHARED: [2.0, 2.1]}
    times = StepTimes(1000, seconds, dict.fromkeys(seconds, 1.5), dict.fromkeys(seconds, 1200))
    training_costs.show_ways(results, times)
    out = " ".join(capsys.readouterr().out.split())
    assert results.metrics["lora.training_speedup"]["value"] == pytest.approx(2.0)
    assert results.metrics["lora.training_tokens_per_second.plain"]["value"] == pytest.approx(1000 / 4.1)
    assert "'several in a row': 2.00 times" in out and "Nothing gained here: tables shared." in out
    assert "Compiled layers are left out" in out and COMPILED not in out


def report(weights, trained, peak, seconds=10.0):
    return {"weight_bytes": weights, "trainable": trained, "peak_memory_gib": peak, "seconds": seconds, "steps": 5}


@pytest.mark.parametrize(("peak", "says"), [(1.0, "Four bits save 0.50 GiB"), (1.8, "0.30 GiB more than LoRA")])
def test_the_reason_fits_the_memory(results, base, capsys, peak, says):
    reports = {"full": report(2**29, 2**27, 4.0), "lora": report(2**28, 2**20, 1.5)}
    reports["qlora"] = report(2**27, 2**20, peak, seconds=20.0)
    training_costs.show_costs(results, reports, base)
    out = " ".join(capsys.readouterr().out.split())
    assert says in out and "takes 2.00 times as long" in out
    assert results.metrics["qlora.peak_memory_ratio"]["value"] == pytest.approx(peak / 4)


def test_a_large_model_is_computed(results):
    training_costs.draw_memory_of_7b(results, 16)
    full, one, four = (results.metrics[f"{m}.training_gb.7b.predicted"]["value"] for m in ("full", "lora", "qlora"))
    assert 100 < full < 120 and 13 < one < 16 and 3 < four < 6


CARD = {
    "what": "An adapter",
    "seconds": 3600.0,
    "steps": 100,
    "tokens": 1_000_000,
    "rows": 600,
    "loss": [0.02],
    "arguments": {
        "per_device_train_batch_size": 6,
        "max_seq_length": 512,
        "lora_r": 16,
        "lora_alpha": 32.0,
        "lr": 1e-3,
        "lr_scheduler_type": "cosine",
    },
}


def test_a_card_tells_of_all_its_runs(capsys):
    card = CARD | {"began_with": CARD | {"loss": 0.5}, "execution_accuracy": {"test": 0.8}}
    card["right_by_kind"] = {"join": "3 of 4"}
    adapter_card.show_card(card)
    out = " ".join(capsys.readouterr().out.split())
    assert "run 1: 1.0 hours on a CPU, 100 steps" in out and "run 2:" in out and "278 tokens/s" in out
    assert "right, test: 80.0%" in out and "join 3 of 4" in out
    assert adapter_card.losses_of(card) == [0.5, 0.02]
    for losses in ([0.02], [0.9, 0.5, 0.3, 0.2, 0.1, 0.02]):
        adapter_card.draw_losses([1.0, 0.8], card | {"loss": losses})
        assert "ended at 0.020" in capsys.readouterr().out
    adapter_card.show_card({})
    assert capsys.readouterr().out == ""
    adapter_card.draw_losses([1.0, 0.8], {})


TABLE = "CREATE TABLE ship (name TEXT, age INTEGER)"
EXAMPLES = [
    Example("1", TABLE, "How many ships?", "SELECT COUNT(*) FROM ship"),
    Example("2", TABLE, "Which ships are older than 5?", "SELECT name FROM ship WHERE age > 5"),
]


def test_three_counts_of_right_answers(results, capsys):
    in_other_words = "SELECT name FROM ship WHERE NOT age <= 5"
    judged = {
        "base": Judged.of(EXAMPLES, ["Here:\n```sql\nselect count(*) from ship\n```", "none"]),
        "trained here": Judged.of(EXAMPLES[:1], ["SELECT 1"]),
        "shipped adapter": Judged.of(EXAMPLES, [EXAMPLES[0].answer, in_other_words]),
    }
    tuned_answers.show_quality(results, judged)
    values = {key: row["value"] for key, row in results.metrics.items()}
    assert values["lora.execution_accuracy"] == 1 and values["lora.normalized_match"] == 0.5
    assert values["lora.exact_match"] == 0.5 and values["lora.bare_sql_rate"] == 1
    assert values["lora.execution_accuracy.base"] == 0.5 and values["lora.normalized_match.base"] == 0.5
    assert values["lora.exact_match.base"] == 0 and values["lora.bare_sql_rate.base"] == 0
    assert values["lora.execution_accuracy.own"] == 0 and results.metrics["lora.execution_accuracy"]["n"] == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "1 of its 2 right answers are spelled otherwise" in out and "1 fixed, 0 broken, of 2" in out


def test_without_a_shipped_model_the_own_one_stands_for_it(results):
    judged = {name: Judged.of(EXAMPLES, [e.answer for e in EXAMPLES]) for name in ("base", "trained here")}
    tuned_answers.show_quality(results, judged)
    assert results.metrics["lora.execution_accuracy"] == results.metrics["lora.execution_accuracy.own"]


def test_merged_answers_are_compared_token_by_token(results, base, capsys):
    ours = adapted(base)
    merged = lora_parts.merged_by(ours, lora.merged_weight)
    tuned_answers.show_identical(results, merged, ours, [[5, 9, 13], [7, 1]], 5)
    assert results.metrics["lora.merged_identical_answers"]["value"] == 1
    tuned_answers.show_identical(results, base, ours, [[5, 9, 13], [7, 1]], 5)
    assert results.metrics["lora.merged_identical_answers"]["value"] < 1
    assert "near tie" in " ".join(capsys.readouterr().out.split())


class Answered:
    """An answer of `n` tokens, as `generate` records it."""

    def __init__(self, n, seconds, finish_reason="eos"):
        self.token_ids, self.text, self.finish_reason = list(range(n)), "SELECT 1", finish_reason
        self.steps = [type("Step", (), {"seconds": s})() for s in [2 * seconds, *[seconds] * (n - 1)]]


def test_requests_are_compared_by_tokens_and_time(results, capsys):
    timed = {
        "base": Timed([1.0, 1.1], [Answered(40, 0.02, "length"), Answered(40, 0.02)]),
        "fine-tuned": Timed([0.5, 0.5], [Answered(10, 0.02), Answered(10, 0.02)]),
    }
    tuned_answers.show_latency(results, timed, EXAMPLES, 1.5)
    out = " ".join(capsys.readouterr().out.split())
    assert results.metrics["lora.latency_speedup"]["value"] == pytest.approx(2.1)
    assert results.metrics["lora.tokens_per_answer_ratio"]["value"] == 0.25
    assert "(1 of 2 cut off)" in out and "it would be 4.00" in out and "would have gone on" in out
    assert [row["technique"] for row in results.prompts] == ["base", "base", "fine-tuned", "fine-tuned"]


def test_an_adapter_is_tried_on_both_bases(results, base, tmp_path, capsys):
    peft_files.save_adapter(adapted(base), tmp_path / "qlora")
    four_bits = copy.deepcopy(base)
    for p in four_bits.parameters():  # rounded coarsely, in place of NF4
        p.data = (p.data * 4).round() / 4
    pairs = [([5, 9], [13, 2]), ([7], [1, 40])]
    nf4_base.show_bases(results, four_bits, base, {"qlora": tmp_path / "qlora"}, pairs)
    four, whole = (results.metrics[f"qlora.perplexity.{k}_base"]["value"] for k in ("four_bit", "unquantized"))
    assert four != whole and "trained on the 4-bit base" in capsys.readouterr().out
    assert not list(lora.layers(base))


def test_prompts_are_peft_s_and_a_gate_that_does_not_start_shut_is_seen(results, base, monkeypatch):
    many_adapters.compare_prompts_with_peft(results, base, IDS, 3)
    assert all(row["holds"] for row in results.invariants.values()) and len(results.invariants) == 2
    install = many_adapters.llama_adapter.install

    def open_at_first(model, count):
        for attention in many_adapters.llama_adapter.adapted_layers(install(model, count)):
            attention.gate.data.fill_(0.1)
        return model

    monkeypatch.setattr(many_adapters.llama_adapter, "install", open_at_first)
    many_adapters.compare_prompts_with_peft(results, base, IDS, 3)
    assert not results.invariants["llama_adapter.begins_as_the_base"]["holds"]


def test_a_request_that_gets_another_s_adapter_is_seen(results, base, monkeypatch):
    both = lora_parts.sharing_copy(base)
    for name in ("sql", "explained"):
        lora.install(both, name, rank=2)
    lora_parts.as_if_trained(both, 1, size=1.0)
    answers = {"right": lambda active: active, "wrong": lambda active: list(reversed(active))}

    def answer_in_batches(model, tokenizer, prompts, **more):
        active = next(iter(lora.layers(model)))[1].active
        of_each = [active] * len(prompts) if active is None or isinstance(active, str) else answers[kind](active)
        return [f"{prompt} by {name}" for prompt, name in zip(prompts, of_each)]

    monkeypatch.setattr(many_adapters, "answer_in_batches", answer_in_batches)
    for kind in answers:
        many_adapters.show_mixed_batch(results, both, None, ["a", "b", "c", "d"], ["sql", "explained", None], 5)
        row = results.invariants["lora.two_adapters_in_one_batch"]
        assert (row["holds"], row["of"]) == (kind == "right", 4)


def test_steps_and_memory_of_adapters_are_written(results, base, capsys):
    both = lora_parts.sharing_copy(base)
    for name in ("sql", "explained"):
        lora.install(both, name, rank=2)
    many_adapters.show_batch_costs(results, base, both, ["sql", "explained", None], 3, 2)
    assert {"lora.adapters_step_speedup.one.batch_3", "lora.adapters_step_speedup.mixed.batch_3"} <= set(
        results.metrics
    )
    assert 0.5 < results.metrics["lora.two_adapters_memory_ratio"]["value"] < 1
    assert "2 merged models" in capsys.readouterr().out


def test_a_step_s_examples_fill_its_rows():
    examples = [Example(str(n), f"table {n // 3}", "", "") for n in range(30)]
    encoded = [Encoded([*range(20), n, n], [IGNORED] * 21 + [n]) for n in range(30)]
    sizes = tuning.TUNING["cpu"]
    groups = tuning.groups_for_a_step(examples, encoded, sizes)
    assert 1 < len(groups) <= 10 and all(len(group) == 3 for group in groups)
    smoke = tuning.groups_for_a_step(examples, encoded, tuning.TUNING["smoke"])
    assert 1 <= len(smoke) < 10


def test_what_is_learned_of_an_example_is_set_apart(capsys):
    tokenizer = type("Tokenizer", (), {"decode": staticmethod(lambda ids: " ".join(map(str, ids)))})
    lora_parts.show_labels(tokenizer, [7, 8, 20, 2], [IGNORED, IGNORED, 20, 2])
    out = capsys.readouterr().out
    assert "read: '7 8'" in out and "learned: '20' | '2'" in out and "2 tokens are read, 2 are learned" in out


@pytest.mark.parametrize("profile", list(tuning.TUNING))
def test_trainings_are_ones_that_the_script_takes(results, monkeypatch, tmp_path, profile):
    launched = []

    def launch(script, model_id, arguments, inside):
        Arguments(model_id=model_id, **arguments)  # refuses what it does not know
        folder = tmp_path / str(len(launched))
        for part in ("checkpoints", "merged", "adapter"):
            (folder / part).mkdir(parents=True)
        launched.append((arguments, inside))
        return folder

    monkeypatch.setattr(tuning, "launch", launch)
    lesson = SimpleNamespace(profile=profile, seed=3, model_id="base")
    own = tuning.train_own(lesson, 8, 1e-3)
    full = tuning.train_briefly(lesson, "full", 8, 1e-4)
    more = tuning.train_adapter(lesson, 1e-3, begin_with="fine-tuned", answers="explained")
    assert sorted(p.name for p in own.iterdir()) == ["adapter", "merged"] == sorted(p.name for p in more.iterdir())
    assert [p.name for p in full.iterdir()] == ["adapter"]
    assert all(inside == (profile == "smoke") and given["seed"] == 3 for given, inside in launched)
    assert launched[0][0]["lora_alpha"] == 16 and launched[1][0]["method"] == "full"
    if profile == "smoke":
        rows = Path(launched[0][0]["train_dataset_path"]).read_text().splitlines()
        assert len(rows) == 8 and all(given["max_steps"] == 2 for given, _ in launched)
