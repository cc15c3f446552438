"""What all scripts share: how options are spelled and read, SageMaker's folders, and that no script needs another."""

import json
import re
import runpy
import sys
from dataclasses import dataclass

import pytest
import torch

from helpers.errors import CourseError
from helpers.files import ROOT
from helpers.source_code import imported_names
from helpers.training import script

FOLDER = ROOT / "helpers" / "training"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if "__name__ ==" in path.read_text(encoding="utf-8"))


@dataclass
class Arguments(script.Arguments):
    output_dir: str = script.model_dir("example")
    method: str = script.choice("lora", ("lora", "full"))
    train_dataset_path: str = script.channel("train")
    epochs: float = 3.0
    lora_r: int = 16
    merge_weights: bool = True


def other_scripts(name, code):
    """The scripts that a script's code imports."""
    return {other for other in imported_names(code) for s in SCRIPTS if s != name and s in other.split(".")}


def test_the_scripts_are_known():
    assert {"distil_draft", "fine_tune_llm", "train_medusa_heads"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_imports_another(name):
    assert not other_scripts(name, (FOLDER / f"{name}.py").read_text(encoding="utf-8"))


def test_a_script_that_imports_another_is_caught():
    assert other_scripts("train_medusa_heads", "from helpers.training.distil_draft import answered")
    assert other_scripts("train_medusa_heads", "from helpers.training import fine_tune_llm")
    assert not other_scripts("distil_draft", "from helpers.training import script")


@pytest.mark.parametrize("name", SCRIPTS)
def test_options_are_spelled_with_underscores(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, f"helpers.training.{name}", raising=False)
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"helpers.training.{name}", run_name="__main__")
    text = capsys.readouterr().out
    assert end.value.code == 0 and "--seed" in text
    assert not re.findall(r"--[a-z]+-[a-z]+", text)


def test_options_as_sagemaker_passes_them():
    options = ["--merge_weights", "False", "--epochs", "2", "--lora_r", "8", "--model_id", "base"]
    a = script.parse(Arguments, options=options)
    assert (a.merge_weights, a.epochs, a.lora_r, a.model_id) == (False, 2.0, 8, "base")
    assert isinstance(a.epochs, float)


@pytest.mark.parametrize("option", ["--merge_weights=maybe", "--lora_r=x", "--lora-r=8", "--epoch=2", "--unknown=1"])
def test_an_option_that_is_misspelled_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        script.parse(Arguments, options=[option])
    assert "error" in capsys.readouterr().err


def test_an_unknown_choice_is_refused_and_the_choices_are_named():
    with pytest.raises(CourseError, match=r"--method prefix is unknown; there are lora, full\."):
        Arguments(method="prefix")
    with pytest.raises(CourseError, match="--bf16 yes is unknown; there are auto, True, False"):
        script.parse(Arguments, options=["--bf16=yes"])


def test_sagemaker_s_folders(monkeypatch, tmp_path):
    for name in ("SM_MODEL_DIR", "SM_CHANNEL_TRAIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    a = Arguments()
    assert (a.output_dir, a.train_dataset_path) == (str(tmp_path / "example"), "course")
    assert a.checkpoints == tmp_path / "example" / "checkpoints"
    monkeypatch.setenv("SM_MODEL_DIR", "/opt/ml/model")
    monkeypatch.setenv("SM_CHANNEL_TRAIN", "/opt/ml/input/data/train")
    a = script.parse(Arguments, options=[])
    assert (a.output_dir, a.train_dataset_path) == ("/opt/ml/model", "/opt/ml/input/data/train")
    assert a.checkpoints.as_posix() == "/opt/ml/checkpoints"


def test_a_course_error_ends_the_process_with_its_sentence(monkeypatch):
    def fail(arguments):
        raise CourseError("Take another model.")

    monkeypatch.setattr(sys, "argv", ["example"])
    with pytest.raises(SystemExit, match=r"^Take another model\.$"):
        script.run(fail, Arguments, "")
    monkeypatch.setattr(sys, "argv", ["example", "--method=x"])
    with pytest.raises(SystemExit, match="--method x is unknown"):
        script.run(fail, Arguments, "")


def test_precision_follows_the_machine_unless_it_is_given(monkeypatch):
    for native in (True, False):
        machine = type("Machine", (), {"bf16_is_native": native})
        monkeypatch.setattr(script, "describe_machine", lambda machine=machine: machine)
        assert Arguments().compute_dtype("cpu") == (torch.bfloat16 if native else torch.float32)
        assert Arguments().compute_dtype("cuda") == torch.bfloat16
        assert Arguments(bf16="False").compute_dtype("cuda") == torch.float32
        assert Arguments(bf16="True").compute_dtype("cpu") == torch.bfloat16


def test_a_card_names_what_made_it_and_no_folder_of_this_machine(tmp_path):
    a = Arguments(output_dir=str(tmp_path), export=str(tmp_path), lora_r=4)
    script.write_card(tmp_path, a, {"target": "base"})
    text = (tmp_path / "card.json").read_text()
    card = json.loads(text)
    assert (card["target"], card["arguments"]["lora_r"], card["torch"]) == ("base", 4, torch.__version__)
    assert str(tmp_path) not in text and card["machine"]["cores"]
