"""Launched scripts: run once, found again until something that they are made of changes, and failures are told."""

import json
import shutil

import pytest

from helpers import files
from helpers.errors import CourseError
from helpers.text_to_sql.dataset import load_split
from helpers.training import launch as launching
from helpers.training.launch import artifact, launch
from tests.training.tiny_llama import save_tiny_llama

SCRIPT = "helpers.training.fine_tune_llm"


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A tiny model with training data beside it; artifacts go to a folder of the test."""
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))
    folder = tmp_path / "tiny"
    save_tiny_llama(folder)
    lines = [{"context": e.context, "question": e.question, "answer": e.answer} for e in load_split("train", limit=8)]
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def options(base):
    return dict(max_steps=1, eval_samples=0, train_dataset_path=str(base), per_device_train_batch_size=1, bf16="False")


def test_a_launched_script_is_run_once_and_its_failure_is_told(base, capfd):
    folder = launch(SCRIPT, str(base), options(base))
    assert folder == artifact(SCRIPT, str(base), options(base))
    assert "step 1/1" in capfd.readouterr().out
    assert launch(SCRIPT, str(base), options(base)) == folder
    assert "made before" in capfd.readouterr().out
    with pytest.raises(CourseError, match=r"stopped with code 1: --method nothing is unknown"):
        launch(SCRIPT, str(base), dict(method="nothing"))


def test_a_script_runs_inside_this_process_too(base):
    folder = launch(SCRIPT, str(base), options(base), inside=True)
    assert (folder / "report.json").exists()
    with pytest.raises(CourseError, match="stopped: --method nothing is unknown"):
        launch(SCRIPT, str(base), dict(method="nothing"), inside=True)


@pytest.mark.parametrize(
    ("changed", "another"),
    [
        ("helpers/training/fine_tune_llm.py", True),
        ("helpers/training/packing.py", True),  # which the script imports
        ("helpers/weights/adapters/lora.py", True),
        ("helpers/text_to_sql/words.py", True),  # which something imports that the script imports
        ("helpers/training/distil_draft.py", False),  # which is only named, in a command
        ("helpers/notebook/plots.py", False),
        ("helpers/training/launch.py", False),
    ],
)
def test_an_artifact_is_made_anew_when_code_that_the_script_reaches_changes(base, tmp_path, changed, another):
    shutil.copytree(files.ROOT / "helpers", tmp_path / "helpers", ignore=shutil.ignore_patterns("__pycache__"))

    def place():
        return artifact(SCRIPT, str(base), dict(seed=0), root=tmp_path)

    before = place()
    assert before == artifact(SCRIPT, str(base), dict(seed=0))
    with (tmp_path / changed).open("a") as file:
        file.write("x = 1\n")
    assert (place() != before) == another


def test_an_artifact_is_made_anew_when_arguments_models_or_data_change(base, tmp_path, monkeypatch):
    def place(**more):
        return artifact(SCRIPT, str(base), options(base) | more)

    before = place()
    assert place() == before and place(seed=1) != before
    assert artifact(SCRIPT, str(base), options(base), ["-m", "torch.distributed.run"]) != before
    with (base / "train.jsonl").open("a") as file:
        file.write("\n")
    longer = place()
    assert longer != before
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    assert place() != longer
    places = [artifact(SCRIPT, str(base), {})]
    shutil.copytree(launching.DATA, tmp_path / "data")
    monkeypatch.setattr(launching, "DATA", tmp_path / "data")
    assert [artifact(SCRIPT, str(base), {})] == places
    for file in ("train.jsonl", "domains/zoo.yaml"):  # what is committed, and what more examples are made from
        (tmp_path / "data" / file).write_text("")
        places.append(artifact(SCRIPT, str(base), {}))
    assert len(set(places)) == 3


def test_an_adapter_that_training_goes_on_with_is_part_of_what_is_made(base, monkeypatch):
    hashes = {"fine-tuned": "one"}
    monkeypatch.setattr(launching.models, "hash_of", lambda name: hashes.get(name, "base"))
    more = {**options(base), "begin_with": "fine-tuned"}
    before = artifact(SCRIPT, str(base), more)
    assert artifact(SCRIPT, str(base), more) == before != artifact(SCRIPT, str(base), options(base))
    hashes["fine-tuned"] = "another"
    assert artifact(SCRIPT, str(base), more) != before
