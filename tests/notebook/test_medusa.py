"""What notebook 08 prints and writes follows from its results: choices, speeds, identity, the sceptic's answers."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from helpers.decoding.acceptance import longest_path
from helpers.measuring.timing import Comparison, Timed
from helpers.notebook import medusa_duel as duel
from helpers.notebook import medusa_sceptic as sceptic
from helpers.notebook.medusa_bench import BFLOAT16, FLOAT32, SIZES, MedusaBench
from helpers.notebook.medusa_choice import (
    NEVER,
    Prices,
    all_ranks,
    choose_fixed_tree,
    halves,
    show_fixed_tree,
    show_plans,
)
from helpers.notebook.medusa_step import SMALL_TREE, OpenStep, open_step, show_judged
from helpers.notebook.medusa_training import show_head_accuracy
from helpers.notebook.profiles import PROFILES
from helpers.notebook.results import Results
from helpers.profiling.arms import Answer
from helpers.profiling.breakdown import StepBreakdown
from helpers.speculation.medusa import Medusa
from helpers.speculation.plan import Costs, Plan
from helpers.speculation.replay import KnownAnswer
from tests.speculation.test_medusa import PROMPT, heads_for
from tests.speculation.test_reduced_heads import TOKEN_IDS, reduced_from
from tests.tiny_models import greedy, tiny

plt.switch_backend("Agg")
RIGHT, WRONG = "SELECT COUNT(*) FROM ship", "SELECT name FROM ship"
EXAMPLE = SimpleNamespace(id="test-0001", context="CREATE TABLE ship (name TEXT)", answer=RIGHT, question="How many?")


@pytest.fixture
def results(tmp_path):
    made_from = dict(models=[], code_hash="0" * 12, model_hash="0" * 12)
    machine = dict(cpu="x", cores=2, memory_gib=8.0, accelerator=None)
    return Results("08_medusa", "smoke", tmp_path, machine=machine, **made_from)


class Letters:
    def decode(self, tokens, skip_special_tokens=False):
        return {1: RIGHT, 2: WRONG}.get(tokens[0], f"<{tokens[0]}>")


@pytest.fixture
def bench(results):
    lesson = SimpleNamespace(profile="smoke", device="cpu", results=results, model_id="tiny", seed=0)
    model = tiny()
    heads = heads_for(model)
    both = {FLOAT32: model, BFLOAT16: model}
    return MedusaBench(lesson, "tiny", "none", SIZES["smoke"], Letters(), both, both, {FLOAT32: heads, BFLOAT16: heads})


def test_every_profile_has_its_sizes_and_trains_no_answers_longer_than_it_asks():
    assert set(SIZES) == set(PROFILES)
    assert SIZES["full"].timed == SIZES["full"].identity == 450 and SIZES["full"].runs >= 3
    assert SIZES["cpu"].runs >= 3 and not SIZES["smoke"].vllm


def run_of(tokens, seconds):
    """A run of two prompts: each arm's tokens and seconds."""
    return {arm: Timed([seconds[arm]] * 2, [Answer(t, len(t) - 1) for t in tokens[arm]]) for arm in tokens}


TOKENS = {
    duel.GREEDY: [[1, 5, 6], [2, 5, 6]],
    duel.ALONE: [[1, 5, 6], [2, 5, 6]],
    duel.ALL: [[1, 5, 6], [1, 5, 6]],  # another answer to the second prompt, and it is right
}
SECONDS = {duel.GREEDY: 1.0, duel.ALONE: 0.5, duel.ALL: 0.25}


def test_speeds_and_what_changed_are_written_with_their_n(bench, results, capsys):
    runs = [run_of(TOKENS, SECONDS), run_of(TOKENS, {**SECONDS, duel.ALONE: 0.4})]
    gains = duel.show_speed(bench, results, runs, [EXAMPLE, EXAMPLE])
    assert gains[duel.ALONE].ratio == pytest.approx(4 / 1.8) and gains[duel.ALONE].runs == 2
    assert results.metrics["medusa.speedup"]["low"] <= 2 and results.metrics["medusa.speedup"]["high"] >= 2.5
    assert results.metrics["medusa.identical_share.with_lookup.bf16"]["value"] == 0.5
    assert results.metrics["medusa.execution_accuracy"]["value"] == 1
    plain = results.metrics["medusa.execution_accuracy.greedy"]
    assert (plain["value"], plain["n"]) == (0.5, 2)
    tokens = results.metrics["medusa.accepted_per_step"]
    assert (tokens["value"], tokens["low"], tokens["high"], tokens["n"]) == (1, 1, 1, 2)
    assert "1 fixed, 0 broken, of 2" in capsys.readouterr().out
    assert [row["right"] for row in results.prompts if row["technique"] == duel.GREEDY] == [True, False]
    duel.show_speed(bench, results, runs, [EXAMPLE, EXAMPLE], "chatty")
    assert (
        "medusa.speedup.with_lookup.chatty" in results.metrics and "medusa.accepted_per_step.chatty" in results.metrics
    )
    assert not any("chatty" in key and "accuracy" in key for key in results.metrics)


def test_a_part_of_the_runs_keeps_seconds_and_answers_together():
    [one] = duel.part([run_of(TOKENS, SECONDS)], 1)
    assert one[duel.ALL].results[0].token_ids == [1, 5, 6] and len(one[duel.GREEDY].seconds) == 1


@torch.inference_mode()
def test_identity_is_counted_and_a_wrong_acceptance_seen(bench, results, monkeypatch):
    prompts = [PROMPT, PROMPT[::-1]]
    proposers = {duel.ALONE: Medusa(bench.heads[FLOAT32], SMALL_TREE)}
    duel.show_identity(bench, results, proposers, prompts)
    assert results.invariants["medusa.identical_outputs"] == {"holds": True, "count": 2, "of": 2}

    def accepts_all(proposal, logits, sampler):
        return ([0] if proposal.tokens else []), int(logits[-1].argmax())  # the mistake

    monkeypatch.setattr("helpers.decoding.sequence.accept", accepts_all)
    monkeypatch.setattr(
        bench, "answer", lambda prompt, proposer=None, dtype=FLOAT32: SimpleNamespace(token_ids=proposer)
    )
    duel.show_identity(bench, results, proposers, prompts)
    assert not results.invariants["medusa.identical_outputs"]["holds"]


def prices_for(bench, step):
    return Prices(bench, FLOAT32, Costs(1.0, step), StepBreakdown(1.0, 0.0, 0.0), [PROMPT])


def test_a_tree_that_is_no_better_than_a_chain_is_called_so(bench, results, capsys):
    chains = [[[0, 0, 0, 0, 0]] * 9 + [[0, 0, 0, 0], [0, 0, 0], [0, 0], [0], []]] * 4
    rivals = [[[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]] * 5 + [[]]] * 4
    for ranks, beats in ((chains, False), (rivals, True)):
        found = choose_fixed_tree(prices_for(bench, {1: 1.0, 65: 1.2}), ranks, most=12)
        assert found.beats_the_chain == beats
        show_fixed_tree(results, found)
        assert ("brings nothing here" in capsys.readouterr().out) != beats
        assert found.speedup >= max(found.by_size.values())
    assert results.metrics["medusa.predicted_speedup"]["kind"] == "predicted"
    plt.close("all")


def test_what_is_chosen_on_is_not_what_is_counted_on():
    assert halves([1, 2, 3]) == ([1, 2], [3]) and halves([1]) == ([1], [1])


@torch.inference_mode()
def test_a_token_that_is_never_guessed_has_no_rank(bench):
    model = bench.models[FLOAT32]
    bench.heads[BFLOAT16] = reduced_from(bench.heads[FLOAT32], model.get_output_embeddings().weight, TOKEN_IDS)
    hidden = torch.randn(2, 64, dtype=torch.float64)
    [[[outside], []]] = all_ranks(bench, [KnownAnswer([1], [5, 6], hidden)])
    [[[inside], []]] = all_ranks(bench, [KnownAnswer([1], [5, 40], hidden)])
    assert outside == NEVER and inside < len(TOKEN_IDS)


def test_accuracies_have_their_n(results, capsys):
    show_head_accuracy(results, [[[0, 3], [7], []], [[0, 0], [1], []]], 3)
    row = results.metrics["medusa.head_accuracy.head_1"]
    assert (row["value"], row["n"]) == (0.5, 4) and row["low"] < 0.5 < row["high"]
    assert results.metrics["medusa.head_accuracy.top_5.head_2"]["value"] == 1
    assert "medusa.head_accuracy.head_3" not in results.metrics


def plan_of(guessers, speed):
    return Plan(guessers, {}, {1: 1.0, 9: 1.2}, 1.0, speed, 2.0, 3.0)


def test_heads_that_lose_are_called_so(results, capsys):
    plans = {("heads",): plan_of(("heads",), 1.2), ("lookup",): plan_of(("lookup",), 1.4)}
    assert show_plans(results, plans).guessers == ("lookup",)
    assert "here they lose to guessers that nobody trained" in capsys.readouterr().out
    assert results.metrics["medusa.speedup.with_lookup.predicted"]["value"] == 1.4


@torch.inference_mode()
def test_an_open_step_holds_the_model_s_own_tokens(bench, capsys):
    model = bench.models[FLOAT32]
    bench.sizes = SIZES["cpu"]
    step = open_step(bench, PROMPT, Medusa(bench.heads[FLOAT32], SMALL_TREE))
    truth = [*PROMPT, *greedy(model, PROMPT, 60)]
    accepted, bonus = longest_path(step.proposal, step.own.__getitem__)
    tokens = [step.certain, *(step.proposal.tokens[i] for i in accepted), bonus]
    assert any(truth[i : i + len(tokens)] == tokens for i in range(len(truth)))
    assert len(step.own) == len(SMALL_TREE) + 1
    show_judged(bench, OpenStep(3, step.proposal, [*step.own]), longest_path)
    assert f"brings {len(accepted) + 1} token" in capsys.readouterr().out


def gain(ratio, runs=3):
    return Comparison(ratio, ratio - 0.1, ratio + 0.1, 20, runs)


@pytest.mark.parametrize(
    "kinds", [{"transformers": 2.0, "fused": 1.0}, {"transformers": 2.0, "fused": 1.5, "native": 1.0}]
)
def test_the_sceptic_is_answered_from_results(bench, results, capsys, kinds):
    seconds = {(kind, name): s * t for kind, s in kinds.items() for name, t in SECONDS.items()}
    gains = {(kind, name): gain(2.0) for kind in kinds for name in (duel.ALONE, duel.ALL)}
    ladder = sceptic.Ladder(seconds, 0.5, gains)
    sceptic.show_ladder(results, ladder)
    out = capsys.readouterr().out
    assert "8.00 times the tokens a second = 2.00 by the step\nx 2.00 by the heads x 2.00 by the other guessers" in out
    assert "step: fused, in PyTorch" in out and ("step: in C++" in out) == ("native" in kinds)
    arms, large = {duel.ALONE: gain(1.5), duel.ALL: gain(2.2)}, {"heads": 1.9, "draft": 1.6}
    sceptic.answer_the_sceptic(
        bench.lesson, ladder, {1: 2.2, 8: 1.1}, {128: 1.2}, large, gains=arms, people={duel.ALL: gain(1.7)}, prose={}
    )
    out = capsys.readouterr().out
    assert out.count("?\n") == 10 and "8 at once 1.10x" in out and "3 processes gave 2.10 to 2.30" in out
    assert "8.00 over transformers' plain loop = 2.00 step x 2.00 heads x 2.00 others" in out and "1.60x" in out
    assert ("fused, in PyTorch 2.00x; in C++ 2.00x." in out) == ("native" in kinds)
    assert "below it: several tokens share a reading" in out and "08b measures them; it has not run here yet" in out


@pytest.mark.parametrize("n", [1, 8])
def test_shared_steps_are_priced_by_all_their_rows(bench, n, capsys):
    prices, plan = prices_for(bench, {1: 1.0, 16: 4.0, 65: 16.0}), plan_of(("lookup",), 2.0)
    gains = sceptic.show_batches(prices, [[]], plan, 0.0)
    assert list(gains) == [1, 2, 4, 8] and gains[n] == 1
