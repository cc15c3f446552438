"""What notebook 08 chose is written down, and what is read back decodes the same tokens."""

import json
from types import SimpleNamespace

import pytest
import torch

from helpers.decoding.generate import steps
from helpers.errors import CourseError
from helpers.profiling import medusa_arms
from helpers.profiling.medusa_arms import fixed_tree_arm, keep_arms, kept_arms, planned_arm
from helpers.speculation.guessers import guesser
from helpers.speculation.medusa_files import save
from helpers.speculation.plan import Costs, make_plan
from helpers.speculation.replay import KnownAnswer, record
from tests.speculation.test_medusa import PROMPT, TREE, emitted, heads_for
from tests.tiny_models import greedy


@pytest.fixture(autouse=True)
def build(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))


def made(bench, arm):
    options = dict(json.loads(json.dumps(arm)))
    return getattr(medusa_arms, options.pop("make").split(":")[1])(bench, **options)


@torch.inference_mode()
def test_arms_survive_json_and_decode_the_same_tokens(model, tmp_path, monkeypatch):
    monkeypatch.setattr(medusa_arms, "training_answers", lambda tokenizer: [])
    monkeypatch.setattr(medusa_arms.packed_linear, "install", lambda heads, turns: heads)
    heads, truth = heads_for(model), greedy(model, PROMPT, 20)
    save(heads, tmp_path / "heads", "tiny")
    states = model(torch.tensor([PROMPT + truth]), output_hidden_states=True).hidden_states[-1][0]
    answer = KnownAnswer(PROMPT, truth, states[len(PROMPT) - 1 : -1])
    names = ["heads", "lookup", "suffix", "recycling"]
    recorded = record([guesser(name, heads) for name in names], [answer])
    plan = make_plan(names, recorded, recorded, Costs(1.0, {1: 1.0, 40: 1.1}), 0.0)
    path = plan.save(tmp_path / "plan.json")
    bench = SimpleNamespace(model=model, tokenizer=None, turns=0)
    for arm in (fixed_tree_arm(tmp_path / "heads", TREE), planned_arm(tmp_path / "heads", path)):
        done = list(steps(model, PROMPT, max_new_tokens=20, proposer=made(bench, arm)))
        assert emitted(done) == truth
        assert any(step.proposal.tokens for step in done) or "plan" in arm  # whose guesses need not pay


def test_kept_arms_come_back_and_their_absence_names_the_remedy():
    with pytest.raises(CourseError, match="run `python -m helpers run --profile smoke --only 08`"):
        kept_arms("smoke")
    arms = {"greedy": {"make": "greedy"}, "heads": fixed_tree_arm("medusa", TREE)}
    keep_arms("smoke", arms)
    assert kept_arms("smoke") == arms and arms["heads"]["tree"][0] == [0]
