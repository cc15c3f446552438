"""The first call of a notebook: fails early with the remedy, says what is real."""

import pytest
import torch

import helpers
from helpers.errors import CourseError
from helpers.models import loading
from helpers.notebook.profiles import PROFILES, SIZES


def test_unknown_profile_model_and_gpu_are_refused(monkeypatch):
    with pytest.raises(CourseError, match="smoke, cpu, full, gpu"):
        helpers.start("00_start_here", profile="fast")
    with pytest.raises(CourseError, match="There is no model bass"):
        helpers.start("00_start_here", model_id="bass")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CourseError, match='take PROFILE = "cpu"'):
        helpers.start("00_start_here", profile="gpu")


def test_every_profile_of_the_runner_has_sizes():
    assert list(SIZES) == list(PROFILES)


def test_it_says_what_is_measured_and_seeds(tmp_path, monkeypatch, capsys):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").touch()
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    lesson = helpers.start("00_start_here", profile="smoke", seed=3)
    first = torch.rand(1)
    shown = capsys.readouterr().out
    assert "profile smoke: 8 prompts" in shown and "machine:" in shown and "measured here" in shown
    helpers.start("00_start_here", profile="smoke", seed=3)
    assert torch.equal(first, torch.rand(1)) and lesson.sizes == SIZES["smoke"]
