"""Training a recurrent drafter: what it learns from, that it learns, resumes, and leaves a card."""

import json

import pytest
import torch

from helpers import models
from helpers.errors import CourseError
from helpers.speculation import recurrent_drafter
from helpers.text_to_sql.dataset import load_split
from helpers.training import train_recurrent_drafter as script
from helpers.training.self_distillation import Answer
from tests.training.test_train_medusa_heads import place  # noqa: F401

SMALL = dict(max_examples=6, eval_samples=3, max_new_tokens=12, epochs=3, width=16, depth=3, batch_positions=16)


@pytest.fixture
def target(place, monkeypatch):  # noqa: F811
    monkeypatch.setattr(script, "training_examples", lambda more, seed: load_split("train", limit=12))
    return str(place)


def test_positions_begin_with_the_token_that_the_state_made():
    answers = [Answer([5, 7, 9], torch.arange(6.0).view(3, 2)), Answer([7, 5], torch.arange(4.0).view(2, 2))]
    hidden, columns = script.positions(answers, 2, torch.tensor([5, 7]))
    assert hidden.tolist() == [[0, 1], [2, 3], [0, 1]]
    halves = [Answer([5, 7, 9], torch.arange(6.0).view(3, 2).bfloat16())]
    assert script.positions(halves, 2, torch.tensor([5, 7]))[0].dtype == torch.float32  # whatever the model's dtype
    assert columns[:, 0].tolist() == [0, 1, 1] and columns[:, 1].tolist() == [1, -1, 0]
    assert (columns[0, 2], columns[1, 2], columns[2, 2]) == (-1, script.IGNORED, script.IGNORED)


def test_it_learns_and_leaves_a_card(target, tmp_path):
    out = tmp_path / "out"
    options = dict(model_id=target, output_dir=str(out), export=str(tmp_path / "exported"), lr=2e-2)
    run = script.train(script.Arguments(**SMALL | options | {"epochs": 12}))
    assert sum(run.losses[-3:]) < 0.7 * sum(run.losses[:3])
    card = json.loads((tmp_path / "exported" / "card.json").read_text())
    assert card["target_hash"] == models.hash_of(target) and len(card["accuracy"]) == 12 and card["losses"]
    loaded = recurrent_drafter.load(tmp_path / "exported", models.load(target)[0])
    assert len(loaded.token_ids) == card["guessed_tokens"]
    with pytest.raises(CourseError, match="works beside a model and is none"):
        models.load(tmp_path / "exported")


def test_a_killed_run_ends_as_one_that_was_not(target, tmp_path, monkeypatch):
    whole = script.train(script.Arguments(**SMALL, model_id=target, output_dir=str(tmp_path / "whole")))
    parts = script.Arguments(**SMALL, model_id=target, output_dir=str(tmp_path / "parts"))
    save, saved = script.Run.save, []

    def killed(run):
        save(run)
        saved.append(run.epoch)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(script.Run, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        script.train(parts)
    again = script.train(parts)
    assert saved == [1, 2, 3] and again.losses == whole.losses
    assert torch.equal(again.drafter.outer.weight, whole.drafter.outer.weight)


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(CourseError, match="--depth must be at least 1"):
        script.Arguments(depth=0)
    with pytest.raises(CourseError, match="--max_new_tokens 2 or more"):
        script.Arguments(max_new_tokens=1)
