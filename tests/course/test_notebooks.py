"""Notebooks are built from their sources without losing outputs, and hygiene sees each planted mistake."""

import ast

import jupytext
import nbformat
import pytest

from helpers.course import readme
from helpers.course.lint import hygiene
from helpers.course.notebooks import (
    build_notebooks,
    copy_for_lab,
    filled,
    from_source,
    notebook_files,
    notebook_of,
    refresh_outputs,
    source_files,
    strip,
    write_notebook,
)
from helpers.errors import CourseError
from helpers.notebook import provenance
from helpers.notebook.source import source_of

SOURCE = """# %% [markdown] tags=["card"]
# # 00 A notebook
# The question; about 1 for the machine.

# %% [markdown] tags=["predict"]
# How much?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # smoke, cpu, full or gpu
GUESS: float = 2.0  # times faster, é

# %% tags=["build"]
# show: helpers.thing:Box.double

# %%
print(PROFILE)

# %% [markdown] tags=["library-none"]
# No library has this: it is only a sum.

# %% tags=["measure"]
print(1 + 1)

# %% [markdown] tags=["limits"]
# None.

# %% [markdown] tags=["decide"]
# Always.
"""

THING = '''class Box:
    """A box."""

    @staticmethod
    def double(x: int) -> int:
        """Twice x."""
        return 2 * x  # a comment stays


def after(): ...
'''


@pytest.fixture
def root(tmp_path):
    """A course of one notebook that shows one method."""
    for name, text in {"notebooks/source/00_x.py": SOURCE, "helpers/thing.py": THING}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    build_notebooks(tmp_path)
    return tmp_path


def execute(root, name="00_x", profile="cpu"):
    """What papermill would leave for the notebook: an injected cell, outputs, counts, its own metadata."""
    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    injected = nbformat.v4.new_code_cell("PROFILE = 'cpu'", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(3, injected)
    count = 0
    for cell in notebook.cells:
        cell.metadata["papermill"] = {"duration": 0.1}
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"out of {cell.source[-8:]}")]
    paths = {"input_path": f"/home/me/{name}.ipynb", "output_path": "/tmp/x.ipynb"}
    notebook.metadata["papermill"] = {"duration": 61.23, "end_time": "now", "exception": None, **paths}
    path = root / "build" / "notebooks" / profile / f"{name}.ipynb"
    write_notebook(path, notebook)
    return path


@pytest.fixture
def finished(root):
    """The course, executed, its outputs taken over; returns the notebook's path."""
    execute(root)
    return refresh_outputs("cpu", out=root / "build", root=root)[0]


def test_a_shown_function_is_its_tested_source(root):
    cell = nbformat.read(root / "notebooks" / "00_x.ipynb", as_version=4).cells[3]
    first, *rest = cell.source.splitlines()
    assert first == "# helpers/thing.py" and rest[0] == "@staticmethod"
    assert rest[-1] == "    return 2 * x  # a comment stays"
    assert filled("x = 1\n# show: helpers.thing:Box", root).startswith("x = 1")  # only where it stands alone
    with pytest.raises(CourseError, match=r"helpers\.thing:Bag"):
        source_of("helpers.thing", "Bag", root)
    with pytest.raises(CourseError, match=r"helpers\.no:f"):
        source_of("helpers.no", "f", root)


def test_building_twice_changes_nothing_and_ids_are_the_same_everywhere(root, tmp_path):
    assert build_notebooks(root) == []
    one, two = (from_source(root / "notebooks/source/00_x.py", root) for _ in range(2))
    assert [cell.id for cell in one.cells] == [cell.id for cell in two.cells]
    assert len({cell.id for cell in one.cells}) == len(one.cells)


def test_a_rebuild_keeps_the_outputs_of_unchanged_cells(finished, root):
    source = root / "notebooks" / "source" / "00_x.py"
    source.write_text(SOURCE.replace("print(1 + 1)", "print(1 + 2)").replace("# Always.", "# Never.\n\n# %%\n2"))
    assert build_notebooks(root) == [finished]
    code = [cell for cell in nbformat.read(finished, as_version=4).cells if cell.cell_type == "code"]
    assert [bool(cell.outputs) for cell in code] == [True, True, True, False, False]


def test_equal_cells_have_ids_of_their_own(root):
    (root / "notebooks/source/00_x.py").write_text(SOURCE + "\n# %%\n1\n\n# %%\n1\n")
    cells = from_source(root / "notebooks/source/00_x.py", root).cells
    assert len({cell.id for cell in cells}) == len(cells)


def test_refreshed_notebooks_are_clean(finished, root):
    notebook = nbformat.read(finished, as_version=4)
    assert hygiene([finished], root) == []
    assert notebook.metadata["course"] == {"profile": "cpu", "seconds": 61.2}
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2, 3, 4]
    assert "/home/" not in finished.read_text() and "papermill" not in finished.read_text()


def test_outputs_of_a_failed_or_another_run_are_refused(root):
    path = execute(root)
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["papermill"]["exception"] = True
    write_notebook(path, notebook)
    with pytest.raises(CourseError, match="failed or was cut off"):
        refresh_outputs("cpu", out=root / "build", root=root)
    execute(root)
    (root / "notebooks/source/00_x.py").write_text(SOURCE.replace("1 + 1", "1 + 2"))
    build_notebooks(root)
    with pytest.raises(CourseError, match="other cells"):
        refresh_outputs("cpu", out=root / "build", root=root)
    assert refresh_outputs("full", out=root / "build", root=root) == []


def test_learners_copies_have_no_outputs_and_are_never_overwritten(finished, root):
    made, kept = copy_for_lab(root=root)
    assert made == [root / "work" / "00_x.ipynb"] and kept == []
    assert "out of" not in made[0].read_text() and "out of" in finished.read_text()
    made[0].write_text("mine")
    assert copy_for_lab(root=root) == ([], made) and made[0].read_text() == "mine"


def test_jupytext_reads_a_built_notebook_back(finished, root):
    text = jupytext.writes(jupytext.read(finished), fmt="py:percent")
    assert 'tags=["parameters"]' in text and "print(1 + 1)" in text


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
        (_source(6, "\n".join(["x = 1"] * 30)), "30 lines of code"),
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


def test_papermill_lists_every_parameter_with_its_type_and_words():
    import papermill

    for path in notebook_files():
        for name, told in papermill.inspect_notebook(str(path)).items():
            assert told["inferred_type_name"] in ("str", "int", "float", "bool") and len(told["help"]) > 5, name


def test_strip_leaves_the_notebook_itself_alone(finished):
    notebook = nbformat.read(finished, as_version=4)
    bare = strip(notebook)
    assert not any(cell.get("outputs") for cell in bare.cells) and any(cell.get("outputs") for cell in notebook.cells)
    assert "course" not in bare.metadata


# The course's own notebooks


@pytest.mark.parametrize("source", source_files(), ids=lambda path: path.stem)
def test_the_courses_notebooks_are_clean(source):
    assert hygiene([notebook_of(source)]) == []


@pytest.mark.parametrize("source", source_files(), ids=lambda path: path.stem)
def test_the_courses_cells_are_python(source):
    for cell in from_source(source).cells:
        if cell.cell_type == "code" and not cell.source.lstrip().startswith(("%", "!")):
            compile(cell.source, source.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_every_notebook_has_a_source():
    assert {path.resolve() for path in notebook_files()} == {notebook_of(source).resolve() for source in source_files()}


def test_results_know_the_code_of_every_notebook():
    for source in source_files():
        assert source in provenance.code_files(source.stem)
