"""The README's table says what the notebooks and the reference results say."""

import json
import shutil

import pytest

from helpers import files
from helpers.course import commits, readme
from helpers.course.commits import COMMITS
from helpers.course.notebooks import notebook_files
from helpers.errors import CourseError
from helpers.notebook import provenance
from helpers.notebook.results import Results


def test_the_table_is_up_to_date():
    text = (files.ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.table() in text, (
        "run `make notebooks`: a result changed, or code that a notebook in README.md measured"
    )


@pytest.mark.parametrize("path", notebook_files(), ids=lambda path: path.stem)
def test_every_notebook_has_results_that_its_headline_can_be_made_of(path):
    document = readme.reference(path.stem, "cpu")
    assert document, f"run {path.stem} under cpu and keep its results"
    assert "{" not in readme.headline_of(document)


HEADER = """# ---
# jupyter:
#   course:
#     minutes: 10
#     headline: "{start.decode_vs_hf_generate:.2f} times as fast."
# ---
"""
MACHINE = {"cpu": "AMD EPYC", "cores": 2, "memory_gib": 23.5, "accelerator": None}


@pytest.fixture
def copy(tmp_path):
    """A course of one notebook, whose headline and results stay as they are here, whatever the real one measures."""
    (tmp_path / "notebooks" / "source").mkdir(parents=True)
    shutil.copy(notebook_files()[0], tmp_path / "notebooks")
    (tmp_path / "notebooks" / "source" / "00_start_here.py").write_text(HEADER)
    (tmp_path / "README.md").write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    for profile in ("full", "cpu"):
        made = Results("00_start_here", profile, tmp_path / "data" / "reference_results" / "machine", machine=MACHINE)
        made.metric("start.decode_vs_hf_generate", 2.0, "x", low=1.9, high=2.1, n=450)
        for name in ("base", "handwritten"):
            made.metric(f"start.{name}_execution_accuracy", 0.5, "share", low=0.4, high=0.6, n=450)
        made.write()
    return tmp_path


def test_a_changed_result_changes_the_table(copy):
    assert readme.refresh(copy) and not readme.refresh(copy)
    text = (copy / "README.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text and "start here" in text
    for path in (copy / "data" / "reference_results").glob("*/*/00_*.json"):
        document = json.loads(path.read_text())
        document["metrics"]["start.decode_vs_hf_generate"] |= {"value": 77.0, "low": 76.0, "high": 78.0}
        path.write_text(json.dumps(document))
    assert readme.refresh(copy) and "77.00 times" in (copy / "README.md").read_text()


def results_of(copy, profile="full"):
    return next((copy / "data" / "reference_results").glob(f"*/{profile}/00_start_here.json"))


def change(path, **metrics):
    """Change the results at `path` as if this code and these models had just made them."""
    document, root = json.loads(path.read_text()), path.parents[4]
    for key, changes in metrics.items():
        document["metrics"][key.replace("__", ".")] |= changes
    document["code_hash"] = provenance.code_hash(document["notebook"], root)
    document["model_hash"] = files.model_hash(document["models"], root)
    path.write_text(json.dumps(document))


def row(copy):
    return next(line for line in readme.table(copy).splitlines() if "start here" in line)


def test_a_column_holds_one_profile(copy):
    change(results_of(copy, "full"), start__decode_vs_hf_generate={"value": 77.0, "low": 76.0, "high": 78.0})
    change(results_of(copy, "cpu"), start__decode_vs_hf_generate={"value": 55.0, "low": 54.0, "high": 56.0})
    assert "77.00 times" in row(copy) and "55.00" not in row(copy)
    results_of(copy, "full").unlink()  # then the sentence waits; it isn't made from another profile
    assert "55.00" not in row(copy) and "not measured under `full` yet" in row(copy)


def test_handwritten_accuracy_stands_beside_the_other(copy):
    change(
        results_of(copy),
        start__base_execution_accuracy={"value": 0.847, "low": 0.8, "high": 0.9, "n": 450},
        start__handwritten_execution_accuracy={"value": 0.1, "low": 0.0, "high": 0.2, "n": 60},
    )
    assert row(copy).endswith("| 84.7% of 450; 10.0% of 60 |")
    assert readme.accuracy_of({"metrics": {}}) == ""


def test_what_is_fine_tuned_comes_before_the_base():
    shares = {name: {"value": 0.5, "kind": "measured", "n": 3} for name in ("a.base_execution_accuracy",)}
    document = {"metrics": shares | {"a.fine_tuned_execution_accuracy": {"value": 0.75, "kind": "measured", "n": 4}}}
    assert readme._share(document, readme.ACCURACIES) == "75.0% of 4"
    assert readme._share(document, readme.HANDWRITTEN) == ""


def test_a_stale_notebook_is_marked_in_its_row(copy):
    for profile in ("full", "cpu"):
        change(results_of(copy, profile))
    assert "stale" not in readme.table(copy).lower()
    source = copy / "notebooks" / "source" / "00_start_here.py"
    source.write_text(source.read_text() + "\n# another line\n")
    assert "start_here.ipynb) **(stale)** |" in row(copy) and "Stale: the notebook's code" in readme.table(copy)


def test_a_model_that_was_not_made_here_yet_does_not_make_results_stale(copy):
    for profile in ("full", "cpu"):
        change(results_of(copy, profile))
        document = json.loads(results_of(copy, profile).read_text())
        document |= {"models": ["build/models/base"], "model_hash": "0123456789abcdef"}
        results_of(copy, profile).write_text(json.dumps(document))
    assert "(stale)" not in row(copy)
    (copy / "build" / "models" / "base").mkdir(parents=True)
    assert "(stale)" in row(copy)


def test_machine_and_commits_stand_above_the_table(copy):
    folder = results_of(copy).parent
    commits = {path.stem: "0123456789" for path in folder.glob("[0-9]*.json")}
    (folder / COMMITS).write_text(json.dumps(commits))
    first = readme.table(copy).splitlines()[0]
    assert first.startswith(
        "Measured on AMD EPYC, 2 cores, 23.5 GiB of memory, no accelerator (`data/reference_results/"
    )
    assert "`full` at commit 0123456789; `cpu` at a commit that was not noted." in first


def test_kept_results_are_those_that_were_measured(copy, monkeypatch, tmp_path):
    source = results_of(copy)
    change(source)
    build = tmp_path / "built"
    (build / "results" / "full").mkdir(parents=True)
    shutil.copy(source, build / "results" / "full")
    (build / "results" / "full" / "00_start_here.predictions.json").write_text("{}")
    monkeypatch.setenv("COURSE_BUILD", str(build))
    monkeypatch.setattr(commits, "current_commit", lambda root: "abcdefabcd")
    kept = readme.keep_reference("another", "full", copy)
    assert [path.name for path in kept] == ["00_start_here.json"] and kept[0].read_text() == source.read_text()
    assert json.loads((kept[0].parent / COMMITS).read_text()) == {"00_start_here": "abcdefabcd"}
    monkeypatch.setattr(commits, "current_commit", lambda root: "ffffffffff")
    readme.keep_reference("another", "full", copy)  # the same results again: measured at the commit before
    assert json.loads((kept[0].parent / COMMITS).read_text()) == {"00_start_here": "abcdefabcd"}


def test_a_headline_of_a_number_that_is_not_there_is_refused(copy):
    source = copy / "notebooks" / "source" / "00_start_here.py"
    source.write_text(source.read_text().replace("{start.decode_vs_hf_generate:", "{start.decode_against_all:"))
    with pytest.raises(CourseError, match=r"00_start_here have no start\.decode_against_all: correct the headline"):
        readme.table(copy)
