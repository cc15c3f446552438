"""From notebooks/source/NN_name.py, which people edit, to notebooks/NN_name.ipynb, which people read and run.

A cell's id is made from its content: a cell that didn't change keeps its id, and so its outputs, when notebooks are
built again. A source cell whose only line is `# show: helpers.module:function` is filled with that function's source.
A source begins with a YAML header, which holds what other modules have to know about the notebook:

    # ---
    # jupyter:
    #   course:
    #     minutes: 10
    #     headline: "{start.decode_vs_hf_generate:.2f} times as fast"
    # ---
"""

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from helpers import files
from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.notebook.source import source_of

SHOW = re.compile(r"# show: (helpers(?:\.\w+)+):(\w+(?:\.\w+)*)")

HEADER = "the header `# jupyter:` with `#   course:` and, under it, `headline` and `minutes`"

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def source_files(root: Path = files.ROOT) -> list[Path]:
    """All notebook sources, the extras last."""
    folder = root / "notebooks" / "source"
    return [*sorted(folder.glob("[0-9]*.py")), *sorted(folder.glob("extras/[0-9]*.py"))]


@dataclass(frozen=True)
class FrontMatter:
    """What a source's header says: the README's sentence, with the keys of results in braces as in a format string,
    and the minutes that the notebook may take under the profile `cpu`."""

    headline: str
    minutes: float


def front_matter(name: str, root: Path = files.ROOT) -> FrontMatter:
    """The header of the notebook's source; CourseError where a part of it is missing."""
    source = next((path for path in source_files(root) if path.stem == name), None)
    if source is None:
        raise CourseError(f"There is no source of {name} in notebooks/source: write {name}.py.")
    course = _read(source).metadata.get("course")
    headline, minutes = (course.get("headline"), course.get("minutes")) if isinstance(course, dict) else (None, None)
    if not isinstance(headline, str) or not headline.strip():
        raise CourseError(f"{source.name} has no headline for the README: write {HEADER}.")
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or minutes <= 0:
        raise CourseError(f"{source.name} has no budget in minutes: write {HEADER}.")
    return FrontMatter(headline, minutes)


def _read(source: Path) -> NotebookNode:
    try:
        return jupytext.read(source, fmt="py:percent")
    except Exception:  # of several kinds, whatever is wrong with the header
        raise CourseError(f"The header of {source.name} can't be read as YAML: write {HEADER}.") from None


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
    written = _read(source)
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
    seen: set[str] = set()
    for cell in written.cells:
        tags = list(cell.metadata.get("tags", []))
        text = filled(cell.source, root) if cell.cell_type == "code" else cell.source
        built = getattr(nbformat.v4, f"new_{cell.cell_type}_cell")(text, metadata={"tags": tags} if tags else {})
        built["id"] = cell_id(cell.cell_type, tags, text, seen)
        notebook.cells.append(built)
    return notebook


def cell_id(kind: str, tags: Sequence[str], text: str, seen: set[str]) -> str:
    """An id that says the cell's part and changes only with its content; `seen` keeps equal cells apart."""
    base = f"{tags[0] if tags else kind}-{hashlib.sha256(f'{kind} {tags} {text}'.encode()).hexdigest()[:10]}"
    unused = next(name for n in range(1, 999) if (name := base if n == 1 else f"{base}-{n}") not in seen)
    seen.add(unused)
    return unused


def filled(text: str, root: Path = files.ROOT) -> str:
    """The cell's text, or the source of what it asks to show, under a comment that says where it lives."""
    show = SHOW.fullmatch(text.strip())
    if show is None:
        return text
    module, name = show.groups()
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
    remedy = f"run `python -m helpers run --profile {profile}` again"
    if run.get("exception") or not run.get("end_time"):
        raise CourseError(f"The executed copy of {name} failed or was cut off: {remedy}.")
    executed_cells = {cell.get("id"): cell for cell in executed.cells}
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if cell.id not in executed_cells:
            raise CourseError(f"The executed copy of {name} was made from other cells: {remedy}.")
        count += 1
        cell.outputs, cell.execution_count = copy.deepcopy(executed_cells[cell.id].outputs), count
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
