"""From notebooks/source/NN_name.py, which people edit, to notebooks/NN_name.ipynb, which people read and run.

A cell's id is made from its content: a cell that didn't change keeps its id, and so its outputs, when notebooks are
built again. A source cell whose only line is `# show: helpers.module:function` is filled with that function's source.
"""

import copy
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from helpers import files
from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.notebook.source import source_of

SHOW = re.compile(r"# show: (helpers(?:\.\w+)+):(\w+(?:\.\w+)*)")

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def source_files(root: Path = files.ROOT) -> list[Path]:
    """All notebook sources, the extras last."""
    folder = root / "notebooks" / "source"
    return [*sorted(folder.glob("[0-9]*.py")), *sorted(folder.glob("extras/[0-9]*.py"))]


def notebook_of(source: Path) -> Path:
    """Where the notebook made from a source stands."""
    extra = source.parent.name == "extras"
    folder = source.parents[2] / "extras" if extra else source.parents[1]
    return folder / f"{source.stem}.ipynb"


def build_notebooks(root: Path = files.ROOT) -> list[Path]:
    """Build every notebook from its source, keeping the outputs of cells that didn't change; returns what changed."""
    changed = []
    for source in source_files(root):
        path = notebook_of(source)
        old = nbformat.read(path, as_version=4) if path.exists() else None
        new = keep_outputs(from_source(source, root), old)
        if old is None or nbformat.writes(new) != nbformat.writes(old):
            write_notebook(path, new)
            changed.append(path)
    return changed


def from_source(source: Path, root: Path = files.ROOT) -> NotebookNode:
    """The notebook that a source file describes, without outputs."""
    read = jupytext.read(source, fmt="py:percent")
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
    seen: set[str] = set()
    for cell in read.cells:
        tags = list(cell.metadata.get("tags", []))
        text = filled(cell.source, root) if cell.cell_type == "code" else cell.source
        new = getattr(nbformat.v4, f"new_{cell.cell_type}_cell")(text, metadata={"tags": tags} if tags else {})
        new["id"] = cell_id(cell.cell_type, tags, text, seen)
        notebook.cells.append(new)
    return notebook


def cell_id(kind: str, tags: Sequence[str], text: str, seen: set[str]) -> str:
    """An id that says the cell's part and changes only with its content; `seen` keeps equal cells apart."""
    base = f"{tags[0] if tags else kind}-{hashlib.sha256(f'{kind} {tags} {text}'.encode()).hexdigest()[:10]}"
    found = next(name for n in range(1, 999) if (name := base if n == 1 else f"{base}-{n}") not in seen)
    seen.add(found)
    return found


def filled(text: str, root: Path = files.ROOT) -> str:
    """The cell's text, or the source of what it asks to show, under a comment that says where it lives."""
    asked = SHOW.fullmatch(text.strip())
    if asked is None:
        return text
    module, name = asked.groups()
    return f"# {module.replace('.', '/')}.py\n{source_of(module, name, root)}"


def keep_outputs(new: NotebookNode, old: NotebookNode | None) -> NotebookNode:
    """`new` with the outputs that cells of the same id have in `old`, and with what is noted about their run."""
    before = {cell.get("id"): cell for cell in old.cells} if old else {}
    for cell in new.cells:
        if cell.cell_type == "code" and cell.id in before:
            cell.outputs = before[cell.id].outputs
            cell.execution_count = before[cell.id].execution_count
    if old and "course" in old.metadata:
        new.metadata["course"] = old.metadata["course"]
    return new


def strip(notebook: NotebookNode) -> NotebookNode:
    """A copy for learners: no outputs, no counts, no notes about a run."""
    bare = copy.deepcopy(notebook)
    bare.metadata.pop("course", None)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return bare


def copy_for_lab(target: Path | None = None, root: Path = files.ROOT) -> tuple[list[Path], list[Path]]:
    """Copy the notebooks without outputs to work/; a learner's copy is never overwritten. Returns (made, kept)."""
    target = Path(target or root / "work")
    made, kept = [], []
    for path in notebook_files(root):
        learners = target / path.relative_to(root / "notebooks")
        (kept if learners.exists() else made).append(learners)
        if not learners.exists():
            write_notebook(learners, strip(nbformat.read(path, as_version=4)))
    return made, kept


def refresh_outputs(
    profile: str = "cpu", only: Sequence[str] | None = None, out: Path | None = None, root: Path = files.ROOT
) -> list[Path]:
    """Take the outputs of the executed copies into the committed notebooks; `only` holds numbers ("00") or names.

    CourseError for a copy that failed, or was made from another version of the notebook.
    """
    folder = Path(out or build_root()) / "notebooks" / profile
    chosen = [path for path in notebook_files(root) if not only or {path.stem, path.stem.split("_")[0]} & set(only)]
    changed = []
    for path in chosen:
        executed = folder / path.name
        if executed.exists():
            notebook = nbformat.read(path, as_version=4)
            take_outputs(notebook, nbformat.read(executed, as_version=4), profile)
            write_notebook(path, notebook)
            changed.append(path)
    return changed


def take_outputs(notebook: NotebookNode, executed: NotebookNode, profile: str) -> None:
    """Fill the notebook's outputs from a complete run of the same cells, numbering the cells without papermill's."""
    name, run = notebook_name(executed), executed.metadata.get("papermill", {})
    again = f"run `python -m helpers run --profile {profile}` again"
    if run.get("exception") or not run.get("end_time"):
        raise CourseError(f"The executed copy of {name} failed or was cut off: {again}.")
    ran = {cell.get("id"): cell for cell in executed.cells}
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if cell.id not in ran:
            raise CourseError(f"The executed copy of {name} was made from other cells: {again}.")
        count += 1
        cell.outputs, cell.execution_count = copy.deepcopy(ran[cell.id].outputs), count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    notebook.metadata["course"] = {"profile": profile, "seconds": round(run["duration"], 1)}


def notebook_name(executed: NotebookNode) -> str:
    """The name that papermill noted."""
    return Path(executed.metadata.get("papermill", {}).get("input_path", "?")).stem


def notebook_files(root: Path = files.ROOT) -> list[Path]:
    """The notebooks in order, the extras last."""
    folder = root / "notebooks"
    return [*sorted(folder.glob("[0-9]*.ipynb")), *sorted(folder.glob("extras/[0-9]*.ipynb"))]


def write_notebook(path: Path, notebook: NotebookNode) -> None:
    """Write a valid notebook, whole or not at all."""
    nbformat.validate(notebook)
    write_whole(path, nbformat.writes(notebook) + "\n")
