"""Notebooks are built from their sources without losing outputs."""

import ast

import jupytext
import nbformat
import pytest

from helpers.course.lint import hygiene
from helpers.course.notebooks import (
    FrontMatter,
    build_notebooks,
    copy_for_lab,
    filled,
    from_source,
    front_matter,
    notebook_files,
    notebook_of,
    refresh_outputs,
    source_files,
    strip,
    write_notebook,
)
from helpers.errors import CourseError
from helpers.notebook.source import source_of
from tests.course.small_course import SOURCE, execute


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


def test_the_header_is_read_and_is_no_cell(finished, root):
    assert front_matter("00_x", root) == FrontMatter("{start.tokens_per_second:.1f} tokens a second", 3)
    source = root / "notebooks" / "source" / "00_x.py"
    source.write_text(SOURCE.replace("minutes: 3", "minutes: 4.5"))
    assert build_notebooks(root) == [] and front_matter("00_x", root).minutes == 4.5
    with pytest.raises(CourseError, match="no source of 01_y in notebooks/source"):
        front_matter("01_y", root)


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


def test_papermill_lists_every_parameter_with_its_type_and_words():
    import papermill

    for path in notebook_files():
        for name, parameter in papermill.inspect_notebook(str(path)).items():
            assert parameter["inferred_type_name"] in ("str", "int", "float", "bool"), name
            assert len(parameter["help"]) > 5, name


def test_strip_leaves_the_notebook_itself_alone(finished):
    notebook = nbformat.read(finished, as_version=4)
    bare = strip(notebook)
    assert not any(cell.get("outputs") for cell in bare.cells) and any(cell.get("outputs") for cell in notebook.cells)
    assert "course" not in bare.metadata


# The course's own notebooks


@pytest.mark.parametrize("source", source_files(), ids=lambda path: path.stem)
def test_the_courses_cells_are_python(source):
    for cell in from_source(source).cells:
        if cell.cell_type == "code" and not cell.source.lstrip().startswith(("%", "!")):
            compile(cell.source, source.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_every_notebook_has_a_source():
    assert {path.resolve() for path in notebook_files()} == {notebook_of(source).resolve() for source in source_files()}
