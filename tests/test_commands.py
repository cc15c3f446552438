"""`python -m helpers ...` as a person types it."""

import subprocess
import sys

import pytest

from helpers import __main__ as commands
from helpers.models import places


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["helpers", *words])
    return commands.main()


def test_models_lists_what_is_there_and_trains_what_is_missing(tmp_path, monkeypatch, capsys):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(bytes(2**20))
    monkeypatch.setattr(places, "FOLDER", tmp_path)
    called = []
    monkeypatch.setattr(subprocess, "call", lambda command: called.append(command) or 0)
    assert call(monkeypatch, "models") == 0
    assert "[ok]      base: 1.0 MiB" in capsys.readouterr().out
    expected = [part.split()[1:] for name in list(places.MADE_BY)[1:] for part in places.MADE_BY[name].split(" && ")]
    assert [command[1:] for command in called] == expected and len(expected) == 3


def test_every_shipped_model_is_listed(monkeypatch, capsys):
    assert call(monkeypatch, "models") == 0
    output = capsys.readouterr().out
    assert all(f"[ok]      {name}: " in output for name in places.MADE_BY)


def test_models_passes_a_failure_on(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "FOLDER", tmp_path)
    monkeypatch.setattr(subprocess, "call", lambda command: 3)
    assert call(monkeypatch, "models") == 3


def test_lab_copies_and_opens_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("helpers.files.ROOT", tmp_path)
    called = {}
    monkeypatch.setattr(subprocess, "call", lambda command, **more: called.update(more, command=command) or 0)
    monkeypatch.setattr("helpers.course.notebooks.copy_for_lab", lambda target: ([target / "00.ipynb"], []))
    assert call(monkeypatch, "lab", "--", "--no-browser") == 0
    assert called["command"][-1] == "--no-browser" and called["cwd"] == tmp_path / "work"
    assert str(tmp_path) in called["env"]["PYTHONPATH"]
    assert "1 notebooks copied to work/" in capsys.readouterr().out


def test_heads_that_are_missing_are_made_again(tmp_path, monkeypatch, capsys):
    for name in ("base", "fine-tuned", "draft"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    monkeypatch.setattr(places, "FOLDER", tmp_path)
    commands = []
    monkeypatch.setattr(subprocess, "call", lambda command: commands.append(command) or 0)
    assert call(monkeypatch, "models") == 0
    assert "[missing] medusa: training it now" in capsys.readouterr().out
    assert [command[1:3] for command in commands] == [["-m", "helpers.training.train_medusa_heads"]]


def test_hygiene_says_what_is_wrong_and_counts_no_lines(monkeypatch, capsys):
    monkeypatch.setattr("helpers.course.lint.hygiene", lambda notebooks: [])
    assert call(monkeypatch, "hygiene") == 0
    assert capsys.readouterr().out == "The notebooks keep the rules of the house.\n"
    monkeypatch.setattr("helpers.course.lint.hygiene", lambda notebooks: ["00: too long"])
    assert call(monkeypatch, "hygiene") == 1
    assert capsys.readouterr().out == "00: too long\n"


@pytest.mark.parametrize("words", [["run", "--profile", "fast"], ["run", "--only", "77"], ["run", "-p", "NOTHING=1"]])
def test_a_mistake_is_one_sentence_and_status_2(monkeypatch, capsys, words):
    assert call(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "there" in error.lower()
