"""Comparisons in fresh processes: every arm gives greedy's tokens, each run counts, nobody sees its own answer."""

import json

import pytest
import torch

from helpers.decoding.generate import steps
from helpers.errors import CourseError
from helpers.measuring.timing import Timed
from helpers.profiling import fresh_runs as module
from helpers.profiling.arms import Answer, Bench
from helpers.profiling.fresh_runs import alike, fresh_runs, gain_over_runs, tokens_per_step
from helpers.profiling.hf_speculation import on_our_step
from tests.tiny_folders import target_and_draft

PROMPTS = [[9, 40, 7, 300, 40, 7], [12, 11], [5, 5, 8]]
WARMUP = [[33, 34]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return target_and_draft(tmp_path_factory.mktemp("models"))


def arms_of(folder):
    draft = str(folder / "draft")
    lookup = {"make": "prompt_lookup", "count": 3}
    small = {"make": "draft_model", "draft": draft, "count": 2}
    recycled = {"make": "recycling", "size": 6}
    assisted = {"make": "hf_assisted", "draft": draft, "num_tokens": 2, "min_probability": 0.0}
    return {
        "greedy": {"make": "greedy"},
        "draft_model": small,
        "prompt_lookup": lookup,
        "bigram": {"make": "bigram", "count": 2},
        "recycling": recycled,
        "suffix.cold": {"make": "suffix", "count": 4, "shortest": 2},
        "suffix.warm": {"make": "suffix", "count": 4, "warm": True},
        "one tree": {"make": "together", "parts": [lookup, recycled]},
        "one after the other": {"make": "first_of", "parts": [lookup, small]},
        "a relay": {"make": "helpers.profiling.arms:relay", "parts": [lookup, recycled], "count": 3},
        "HF assisted": assisted,
        "HF assisted, our step": {**assisted, "same_step": True},
        "HF lookup": {"make": "hf_prompt_lookup", "num_tokens": 3},
        "HF lookup, our step": {"make": "hf_prompt_lookup", "num_tokens": 3, "same_step": True},
    }


@pytest.fixture(scope="module")
def bench(folder):
    return Bench(str(folder / "target"), "float32", max_new_tokens=12, turns=0)


def test_every_arm_answers_as_plain_greedy_decoding_does(folder, bench):
    arms = {name: bench.answers(arm) for name, arm in arms_of(folder).items()}
    for prompt in PROMPTS:
        truth = [t for s in steps(bench.model, prompt, max_new_tokens=12) for t in s.emitted]
        given = {name: answer(prompt).token_ids for name, answer in arms.items()}
        assert {name for name, tokens in given.items() if tokens != truth} == set()


def test_transformers_loop_on_our_step_runs_our_step(bench, monkeypatch):
    calls, own = [], type(bench.fast).forward
    monkeypatch.setattr(type(bench.fast), "forward", lambda self, *a, **k: calls.append(1) or own(self, *a, **k))
    bench.answers({"make": "hf_prompt_lookup", "num_tokens": 3})(PROMPTS[0])
    assert not calls
    answer = bench.answers({"make": "hf_prompt_lookup", "num_tokens": 3, "same_step": True})(PROMPTS[0])
    assert 1 < len(calls) <= len(answer.token_ids)
    assert on_our_step(bench.model, bench.model, 12) is bench.model  # a kind that has no fused step


def test_two_arms_share_a_draft_and_keep_their_settings(folder, bench, monkeypatch):
    seen = []
    draft = bench.draft(str(folder / "draft")).model
    monkeypatch.setattr(
        type(bench.model),
        "generate",
        lambda self, ids, **o: seen.append(draft.generation_config.num_assistant_tokens) or torch.zeros(1, 1),
    )
    common = dict(make="hf_assisted", draft=str(folder / "draft"), min_probability=0.0)
    for answer in [bench.answers({**common, "num_tokens": n}) for n in (3, 8)]:
        answer([1])
    assert seen == [3, 8]


@pytest.mark.parametrize("arm", [{"make": "magic"}, {}, {"make": "helpers.profiling.arms:magic"}])
def test_an_arm_that_nothing_makes_is_refused(bench, arm):
    with pytest.raises(CourseError, match="Nothing makes the arm"):
        bench.made(arm)


def test_runs_are_processes_that_begin_anew(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    names = ("greedy", "suffix.warm")
    arms = {name: arms_of(folder)[name] for name in names}
    options = dict(model_id=str(folder / "target"), dtype="float32", max_new_tokens=12, turns=0)
    runs = list(fresh_runs(arms, PROMPTS, warmup=WARMUP, runs=2, **options))
    assert [list(run) for run in runs] == [list(names)] * 2
    for run in runs:
        assert all(len(run[name].seconds) == len(PROMPTS) and min(run[name].seconds) > 0 for name in names)
        assert [a.token_ids for a in run["greedy"].results] == [a.token_ids for a in run["suffix.warm"].results]
    # What a run learned is gone in the next one: it takes the same steps.
    first, second = ([a.num_steps for a in run["suffix.warm"].results] for run in runs)
    assert first == second
    gain = gain_over_runs(runs, *names)
    assert gain.n == len(PROMPTS) and gain.runs == 2
    assert tokens_per_step(runs, "greedy") == 1 and tokens_per_step(runs, "suffix.warm") >= 1


def test_the_request_reaches_the_process_and_its_trouble_comes_back(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    options = dict(model_id=str(folder / "target"), dtype="float32", runs=1, turns=0)
    with pytest.raises(CourseError, match=r"stopped with code 1.*Nothing makes the arm"):
        list(fresh_runs({"it": {"make": "magic"}}, PROMPTS, **options))
    request = json.loads((tmp_path / "fresh_runs" / "request.json").read_text())
    assert request["threads"] == torch.get_num_threads() and request["prompts"] == PROMPTS


@pytest.mark.parametrize(("prompts", "warmup"), [([[1], [1]], []), ([[1], [2]], [[2]]), ([], []), ([[1]], [[2], [2]])])
def test_a_prompt_that_an_arm_could_have_answered_before_is_refused(monkeypatch, prompts, warmup):
    monkeypatch.setattr(module, "_run", lambda folder: pytest.fail("it ran"))
    with pytest.raises(CourseError, match="every prompt once"):
        list(fresh_runs({"it": {"make": "greedy"}}, prompts, warmup=warmup, model_id="x", dtype="float32"))


def timed(seconds, answers):
    return Timed(list(seconds), [Answer(list(tokens), 1) for tokens in answers])


def test_only_prompts_answered_alike_in_every_run_are_compared():
    same = [[1], [2], [3], [4]]
    runs = [
        {"a": timed([2, 2, 9, 2], same), "b": timed([1, 1, 1, 1], [[1], [2], [8], [4]])},
        {"a": timed([2, 2, 2, 9], same), "b": timed([1, 1, 1, 1], [[1], [2], [3], [8]])},
    ]
    assert alike(runs, "a", "b") == [0, 1]
    gain = gain_over_runs(runs, "a", "b")
    assert gain.ratio == 2 and gain.n == 2
    runs[0]["b"] = timed([1, 1, 1, 1], [[9], [2], [8], [4]])
    assert alike(runs, "a", "b") == [1] and gain_over_runs(runs, "a", "b").n == 4  # too few: all of them
