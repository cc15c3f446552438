"""Who takes part in 08b: the course's own engines answer the same one by one and in batches; who stops is left out."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.errors import CourseError
from helpers.profiling import opponents
from helpers.profiling.arms import Bench
from helpers.profiling.course_baseline import CourseEngine, compiled_arm
from helpers.profiling.opponents import (
    BATCH,
    FUSED,
    GUESSES,
    LONG,
    ONE,
    SIZES,
    Contender,
    Team,
    course_team,
    guessing_arm,
    measured_runs,
    workloads,
)
from helpers.profiling.own_process import Answers, Workload
from tests.tiny_models import greedy, spread
from tests.tiny_tokenizer import tiny_tokenizer

PROMPTS = [[9, 40, 7, 300, 40, 7], [12, 11], [5, 5, 8], [6, 44]]
LOOKUP = {"make": "prompt_lookup", "count": 3}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    place, tokenizer = tmp_path_factory.mktemp("model"), tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    spread(LlamaForCausalLM(config)).float().save_pretrained(place)
    tokenizer.save_pretrained(place)
    return Bench(str(place), "float32", max_new_tokens=12, turns=0)


def test_the_course_s_team_answers_every_workload_alike(bench):
    sizes = SIZES["smoke"]
    loads = workloads(sizes, PROMPTS, [PROMPTS[0] * 4] * 2, [[33, 34]])
    arms = {FUSED: {"make": "greedy"}, GUESSES: LOOKUP}
    answers = course_team(bench, arms, sizes, 1, inside=True).answer(loads)
    assert set(answers) == {(key, load) for key in arms for load in (ONE, BATCH, LONG)}
    truth = [greedy(bench.model, prompt, 12) for prompt in PROMPTS]
    for key in arms:
        assert answers[key, ONE].token_ids == truth[:2] and answers[key, BATCH].token_ids == truth
        assert len(answers[key, BATCH].seconds) == 2


def test_an_arm_for_one_prompt_refuses_several(bench):
    engine = CourseEngine(bench, compiled_arm(64))
    with pytest.raises(CourseError, match="one prompt at a time"):
        engine.answer(PROMPTS, 4)


def team(name, fails_in=()):
    calls = []

    def answer(loads):
        calls.append(list(loads))
        if len(calls) in fails_in:
            raise CourseError("it fell over.")
        return {(name, load): Answers([[1]], [1.0]) for load in loads}

    one = Team(name, [Contender(name, name, "bfloat16", 1)], answer)
    one.calls = calls
    return one


def test_runs_turn_the_order_round_and_leave_out_who_stops(capsys):
    ours, steady, weak = team("ours"), team("steady"), team("weak", fails_in=[2])
    loads = {ONE: Workload([[1]]), BATCH: Workload([[1]], 1)}
    runs = list(measured_runs([ours, steady, weak], loads, 3))
    assert ours.calls == steady.calls == [[ONE, BATCH], [ONE], [ONE]]
    assert list(runs[1]) == [("steady", ONE), ("ours", ONE)] and len(weak.calls) == 2
    assert capsys.readouterr().out.count("weak is left out: it fell over.") == 1


def test_without_ours_there_is_nothing_to_compare():
    with pytest.raises(CourseError, match="fell over"):
        list(measured_runs([team("ours", fails_in=[1])], {ONE: Workload([[1]])}, 1))


def test_what_08_chose_is_taken_and_full_takes_nothing_else(monkeypatch, capsys):
    monkeypatch.setattr(opponents, "kept_arms", lambda profile: {"all guessers": LOOKUP})
    assert guessing_arm("full", "medusa") == LOOKUP

    def nothing(profile):
        raise CourseError("Notebook 08 has chosen nothing.")

    monkeypatch.setattr(opponents, "kept_arms", nothing)
    assert len(guessing_arm("cpu", "medusa")["parts"]) == 2 and guessing_arm("full", None)["make"] == "prompt_lookup"
    assert "stand in" in capsys.readouterr().out
    with pytest.raises(CourseError, match="chosen nothing"):
        guessing_arm("full", "medusa")


def test_the_warm_up_s_prompts_are_others():
    loads = workloads(SIZES["cpu"], [[p] for p in range(20)], [[99] * 50], [[70], [71]])
    for load in loads.values():
        assert not {tuple(p) for p in load.warmup} & {tuple(p) for p in load.prompts}
    assert len(loads[BATCH].warmup) == loads[BATCH].batch_size
