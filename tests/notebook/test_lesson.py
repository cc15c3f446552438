"""The first call of a notebook: fails early with the remedy, says what is real."""

import pytest
import torch

import helpers
from helpers.errors import CourseError
from helpers.models import package, places
from helpers.notebook.profiles import PROFILES


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A folder that stands in for the base's."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").touch()
    monkeypatch.setattr(package, "package_folder", lambda: tmp_path / "base")


def test_unknown_profile_model_and_gpu_are_refused(base, tmp_path, monkeypatch):
    (tmp_path / "medusa").mkdir()
    (tmp_path / "medusa" / places.HEADS).touch()
    monkeypatch.setattr(places, "FOLDER", tmp_path)
    with pytest.raises(CourseError, match="smoke, cpu, full, gpu"):
        helpers.start("00_start_here", profile="fast")
    with pytest.raises(CourseError, match="There is no model bass"):
        helpers.start("00_start_here", model_id="bass")
    with pytest.raises(CourseError, match="There is no folder /nowhere"):
        helpers.start("00_start_here", model_id="/nowhere")
    with pytest.raises(CourseError, match="medusa works beside a model"):
        helpers.start("00_start_here", model_id="medusa")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CourseError, match='take PROFILE = "cpu"'):
        helpers.start("00_start_here", profile="gpu")


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "3"])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(CourseError, match=f"SEED is {seed!r}: give a whole number from 0 to 4294967295"):
        helpers.start("00_start_here", profile="smoke", seed=seed)


def test_it_says_what_is_measured_and_seeds(base, capsys):
    lesson = helpers.start("00_start_here", profile="smoke", seed=3)
    first = torch.rand(1)
    shown = capsys.readouterr().out
    assert "profile smoke: 8 prompts" in shown and "machine:" in shown and "measured here" in shown
    helpers.start("00_start_here", profile="smoke", seed=3)
    assert torch.equal(first, torch.rand(1)) and lesson.sizes == PROFILES["smoke"]
