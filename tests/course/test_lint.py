"""Hygiene sees each planted mistake, and lets pass what only looks like one."""

import nbformat
import pytest

from helpers.course import readme
from helpers.course.lint import hygiene
from helpers.course.notebooks import build_notebooks, notebook_files, notebook_of, refresh_outputs, source_files
from tests.course.small_course import SOURCE, execute


def _edit(path, change):
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    path.write_text(nbformat.writes(notebook))


def _source(index, text):
    return lambda notebook: notebook.cells[index].update(source=text)


def _output(kind, **content):
    return lambda notebook: notebook.cells[6].update(outputs=[nbformat.v4.new_output(kind, **content)])


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda n: n.cells[6].metadata.update(tags=[]), "no cell is tagged measure"),
        (lambda n: n.cells[1].metadata.update(tags=["decide"]), "predict"),
        (lambda n: n.cells[7].metadata.update(tags=["build"]), "build comes after measure"),
        (lambda n: n.cells[0].metadata.update(tags=[]), "the first cell is not tagged card"),
        (lambda n: n.cells[4].metadata.update(tags=["parameters"]), "2 cells are tagged parameters"),
        (_source(2, 'PROFILE = "cpu"  # which'), "not written NAME: type"),
        (_source(2, 'PROFILE: str = "cpu # x"'), "PROFILE has no comment"),
        (_source(2, "N: int = 3  # how many"), "PROFILE is missing"),
        (_source(2, "N: int = "), "can't be read"),
        (_source(5, "None."), "reason in words"),
        (_source(0, "# 00 A notebook"), "the card does not say"),
        (_source(7, "Read [more](extras/none.ipynb)."), "the link to extras/none.ipynb leads nowhere"),
        (_source(7, "A step takes 4.5 ms here."), "'4.5 ms' is typed into the prose"),
        (_source(7, "It is 1.8 times as fast."), "'1.8 times as fast' is typed"),
        (_source(6, "\n".join(["x = 1"] * 21)), "cell 7: 21 lines of code, at most 20"),
        (_source(3, "\n".join(["# helpers/thing.py", *["x = 1"] * 20])), "cell 4: 21 lines of code, at most 20"),
        (_source(6, f"x = {'1' * 85}"), "cell 7: code wider than 88"),
        (_source(3, f"# helpers/thing.py\nx = {'1' * 85}"), "cell 4: code wider than 88"),
        (_source(6, "open('/home/me/x')"), "/home/me"),
        (_source(6, "print(2)"), "differs from 00_x.py"),
        (lambda n: n.cells.pop(), "8 cells, not 9, differs"),
        (_output("error", ename="ValueError", evalue="", traceback=[]), "an error in its outputs, ValueError"),
        (_output("stream", name="stderr", text="progress"), "wrote to stderr: progress"),
        (_output("stream", name="stdout", text="x.py:3: FutureWarning: old"), "a warning in its outputs"),
        (_output("stream", name="stdout", text="in /root/.cache/x"), "/root/.cache"),
        (_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}}), "a widget"),
        (_output("display_data", data={"image/png": "A" * 400_000 + "AAAA" * 4000}), "KB, at most 400"),
        (lambda n: n.metadata.update(widgets={"state": {}}), "widget state"),
        (lambda n: n.metadata.update(papermill={"input_path": "/tmp/x"}), "papermill's metadata"),
        (lambda n: n.cells[6].update(execution_count=None), "not executed from top to bottom"),
        (lambda n: n.cells[6].update(execution_count=7), "not executed from top to bottom"),
    ],
)
def test_hygiene_sees_each_planted_mistake(finished, root, mistake, words):
    _edit(finished, mistake)
    problems = hygiene([finished], root)
    assert any(words in problem for problem in problems), problems
    assert all(problem.startswith("00_x.ipynb: ") for problem in problems)


@pytest.mark.parametrize(
    ("written", "mistaken", "words"),
    [
        ("#     minutes: 3\n", "", "no budget in minutes"),
        ("minutes: 3", "minutes: soon", "no budget in minutes"),
        ("minutes: 3", "minutes: true", "no budget in minutes"),
        ("minutes: 3", "minutes: 0", "no budget in minutes"),
        ("headline: ", "heading: ", "no headline"),
        ("#   course:\n", "#   lesson:\n", "no headline"),
        ("minutes: 3", "minutes: [", "can't be read as YAML"),
        (SOURCE[: SOURCE.index("# %%")], "", "no headline"),
    ],
)
def test_hygiene_names_a_source_without_headline_or_budget(finished, root, written, mistaken, words):
    assert written in SOURCE
    (root / "notebooks/source/00_x.py").write_text(SOURCE.replace(written, mistaken, 1))
    (problem,) = hygiene([finished], root)
    assert words in problem and "00_x.py" in problem and "\n" not in problem and "`headline` and `minutes`" in problem


def test_hygiene_sees_a_notebook_without_source_and_a_broken_one(finished, root):
    other = finished.with_name("01_y.ipynb")
    other.write_bytes(finished.read_bytes())
    (root / "notebooks" / "02_z.ipynb").write_text("{")
    problems = hygiene(notebook_files(root), root)
    assert any("no source" in problem for problem in problems) and any("not a valid" in problem for problem in problems)


def test_legitimate_paths_pass(finished, root):
    text = "see https://x.org/home/x, ./work/x, and /opt/ml/model in the container"
    _edit(finished, _output("stream", name="stdout", text=text))
    assert hygiene([finished], root) == []


def test_code_that_just_fits_passes(finished, root):
    _edit(finished, _source(6, "\n".join([f"x = {'1' * 84}"] * 20)))
    assert all("differs from 00_x.py" in problem for problem in hygiene([finished], root))


def test_what_a_quiz_supposes_and_links_that_lead_somewhere_pass(finished, root):
    source = root / "notebooks" / "source" / "00_x.py"
    source.write_text(
        SOURCE.replace("# Always.", "# If a step takes 7 ms, see [this](00_x.ipynb), [that](https://x.org).")
    )
    build_notebooks(root)
    execute(root)
    refresh_outputs("cpu", out=root / "build", root=root)
    assert hygiene([finished], root) == []


@pytest.mark.parametrize(("took", "fits"), [(None, True), (0.4, True), (1.9, True), (2.1, False), (4.0, False)])
def test_the_card_s_minutes_are_those_of_the_reference_machine(finished, root, monkeypatch, took, fits):
    monkeypatch.setattr(readme, "minutes", lambda name, root: took)
    problems = hygiene([finished], root)
    assert (problems == []) == fits
    assert fits or f"about 1 minutes for the machine; it took {took:.1f}" in problems[0]


@pytest.mark.parametrize("source", source_files(), ids=lambda path: path.stem)
def test_the_courses_notebooks_are_clean(source):
    assert hygiene([notebook_of(source)]) == []
