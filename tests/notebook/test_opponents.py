"""What notebook 08b says of contenders: speeds, floors, who is strongest, a loss as plainly as a win."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from helpers.notebook import opponent_tables as tables
from helpers.notebook import opponents
from helpers.notebook.opponents import Field, Findings
from helpers.notebook.results import Results
from helpers.profiling.agreement import first_difference
from helpers.profiling.opponents import BATCH, FUSED, GUESSES, LONG, ONE, SIZES, Contender, workloads
from helpers.profiling.own_process import Answers
from helpers.text_to_sql.dataset import load_split
from tests.tiny_models import tiny

MB = 10**6


@dataclass
class Words:
    """A tokenizer that knows nothing."""

    chat_template: None = None
    bos_token: str = ""

    def batch_decode(self, answers, skip_special_tokens):
        return ["SELECT 1" for _ in answers]


@dataclass
class Bench:
    model_id: str = "base"
    tokenizer: Words = field(default_factory=Words)

    def ids(self, text):
        return list(range(len(text.split())))


CONTENDERS = {
    one.key: one
    for one in (
        Contender(FUSED, "ours, fused step", "bfloat16", 200 * MB),
        Contender(GUESSES, "ours, all guessers", "bfloat16", 200 * MB, guesses=True),
        Contender("llama_cpp_bf16", "llama.cpp, BF16", "bfloat16", 200 * MB),
        Contender("llama_cpp_q4_1", "llama.cpp, Q4_1", "Q4_1", 70 * MB),
        Contender("vllm_heads", "vLLM, compiled, heads", "bfloat16", 200 * MB, guesses=True),
    )
}
SECONDS = {FUSED: 2.0, GUESSES: 1.0, "llama_cpp_bf16": 1.6, "llama_cpp_q4_1": 0.5, "vllm_heads": 0.9}


def findings(runs=2, seconds=SECONDS, other=(), bandwidth=1e9):
    """Ten answers of ten tokens to each of the `cpu` profile's prompts; those of `other` differ in the last token."""
    sizes = SIZES["cpu"]
    prompts = [[1, 2, place] for place in range(sizes.prompts)]
    loads = workloads(sizes, prompts, [[5] * 40] * sizes.long, [[9]] * 2)

    def answers(key, load):
        last = 8 if key in other else 7
        size = loads[load].batch_size
        count = len(loads[load].prompts)
        return Answers([[3] * 9 + [last]] * count, [seconds[key]] * (count // size))

    first = {(key, load): answers(key, load) for key in CONTENDERS for load in loads}
    single = {(key, ONE): answers(key, ONE) for key in CONTENDERS}
    lesson, examples = SimpleNamespace(device="cpu"), load_split("test", limit=sizes.prompts)
    asked = Field(lesson, sizes, Bench(), None, {}, examples, loads)
    return Findings(asked, CONTENDERS, [first, *[single] * (runs - 1)], bandwidth)


@pytest.fixture
def results(tmp_path):
    return Results("08b_test", "smoke", tmp_path, code_hash="0" * 16, model_hash="0" * 16)


def test_speed_and_share_of_the_floor(results, capsys):
    rates = tables.show_speeds(results, findings())
    assert results.metrics["opponents.fused.tokens_per_second"]["value"] == pytest.approx(5)
    assert results.metrics["opponents.fused.share_of_floor"]["value"] == pytest.approx(1)  # 5 readings of 200 MB
    assert results.metrics["opponents.llama_cpp_q4_1.share_of_floor"]["value"] == pytest.approx(1.4)
    assert list(rates) == list(CONTENDERS) and "2 processes each" in capsys.readouterr().out
    tables.draw_speeds(findings(), rates)
    plt.close("all")
    said = " ".join(capsys.readouterr().out.split())
    assert "past its floor" in said and "The 4-bit file wins all the same" in said


def test_the_strongest_is_plain_and_of_our_precision():
    found = findings()
    rates = {key: found.rate(key) for key in CONTENDERS}
    assert tables.strongest_greedy(found, rates) == "llama_cpp_bf16"


def test_the_two_ratios_a_win_and_a_loss(results, capsys):
    found = findings(other=["llama_cpp_q4_1"])
    rates = {key: found.rate(key) for key in CONTENDERS}
    guesses = {"medusa.speedup_over_strongest_greedy": 1.5, "medusa.vs_llama_cpp_q4": 0.8}
    tables.show_key_ratios(results, found, rates, guesses)
    assert results.metrics["medusa.speedup_over_strongest_greedy"]["value"] == pytest.approx(1.6)
    assert results.metrics["medusa.vs_llama_cpp_q4"]["value"] == pytest.approx(0.5)
    said = capsys.readouterr().out
    assert "ours is the faster one" in said and "ours loses" in said


def test_step_times_guessing_is_the_whole(results, capsys):
    tables.show_split(results, findings())
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("llama.cpp, BF16"))
    whole, step, guessing = map(float, line.removeprefix("llama.cpp, BF16").split()[:3])
    assert (whole, step, guessing) == (1.6, 0.8, 2.0)
    said = " ".join(said.split())
    assert "our step is slower than llama.cpp, BF16" in said and "wins that back against llama.cpp, BF16" in said
    assert results.metrics["opponents.llama_cpp_bf16.ours_faster"]["value"] == pytest.approx(1.6)


def test_batches_and_long_prompts(results, capsys):
    seconds = dict(SECONDS)
    tables.show_batches_and_long(results, findings(seconds=seconds))
    batch = results.metrics["opponents.fused.tokens_per_second.batch_4"]
    assert batch["value"] == pytest.approx(20) and batch["n"] == 2
    assert "What guessing is worth: 2.00 one by one" in capsys.readouterr().out
    found = findings()
    del found.runs[0][FUSED, BATCH], found.runs[0]["llama_cpp_bf16", LONG]
    assert not found.has(FUSED, BATCH)


def test_who_differs_and_by_how_much(results, capsys, monkeypatch):
    monkeypatch.setattr(tables.models, "load", lambda *args, **kwargs: (tiny(), Words()))
    monkeypatch.setattr(
        tables, "margin", lambda model, prompt, a, b: 0.01 if first_difference(a, b) is not None else None
    )
    tables.show_agreement(results, findings(other=["llama_cpp_q4_1", "vllm_heads"]))
    said = capsys.readouterr().out
    assert "0 of 10" in said and "10 of 10" in said and "there the weights themselves are others" in said
    assert results.metrics["opponents.llama_cpp_q4_1.identical_share"]["value"] == 0
    assert results.metrics["opponents.fused.identical_share"]["value"] == 1


def test_a_line_for_each_prompt_and_contender(results):
    opponents.record(results, findings())
    assert len(results.prompts) == 10 * len(CONTENDERS)


@pytest.mark.parametrize(("bandwidth", "says"), [(1e9, "what is left are the bytes"), (1e10, "overhead limits it")])
def test_what_limits_it_is_made_from_the_share(bandwidth, says):
    found = findings(bandwidth=bandwidth)
    assert says in tables.what_limits(found, {key: found.rate(key) for key in CONTENDERS})


def test_a_long_prompt_has_its_own_tables_last():
    examples = load_split("test", limit=12)
    long = opponents.with_more_tables(Bench(), examples, 2, 150)
    assert long.context.endswith(examples[2].context) and long.question == examples[2].question
    assert len(Bench().ids(long.context)) > 100


def test_float32_is_left_out_without_prompts(capsys, results):
    field_of = findings().field
    opponents.show_float32(results, field_of, {})
    assert "left out" in capsys.readouterr().out and not results.invariants
    assert torch.get_num_threads() >= 1
