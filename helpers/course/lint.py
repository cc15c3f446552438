"""What every committed notebook has to be: whole, in eight parts, executed in order, small, and equal to its source."""

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from helpers import files
from helpers.course import readme
from helpers.course.notebooks import from_source, front_matter, notebook_of, source_files
from helpers.errors import CourseError

PARTS = ("card", "predict", "parameters", "build", "library", "measure", "limits", "decide")
NO_LIBRARY = "library-none"  # the tag of a markdown cell that says why there is no library to compare with
MAX_BYTES = 400 * 1024
MAX_LINES = 20  # of a code cell, whether it is written there or shows the package's code: one idea
MAX_WIDTH = 88  # characters of a line of code: what a page shows without a scroll bar
LINK = re.compile(r"\]\((?!https?://|#)([^)\s#]+)")  # to a file of the course
MINUTES = re.compile(r"about (\d+) for the machine")
# A quantity that only a machine can say. What a question of the last part supposes is not about this machine.
MEASURED = re.compile(
    r"\b\d[\d.,]*\s?(?:ms|µs|milliseconds|[GM]B/s|[GT]FLOP/s|tokens(?:/s| per second)|times (?:as fast|faster)|% right)"
)
# A path that only this machine has. Not a URL's, not one inside a longer path, not a container's (/opt/ml/model).
ABSOLUTE = re.compile(r"(?<![\w.:/~])/(?:home|Users|root|tmp|work|mnt|workspace)/[\w.-]+|\b[A-Z]:\\\w+")


def hygiene(paths: Iterable[Path], root: Path = files.ROOT) -> list[str]:
    """All that is wrong with the notebooks, a sentence each, beginning with the file and the cell."""
    sources = {notebook_of(source).resolve(): source for source in source_files(root)}
    every: list[str] = []
    for path in map(Path, paths):
        try:
            notebook = nbformat.read(path, as_version=4)
            nbformat.validate(notebook)
        except Exception as error:
            every.append(f"{path.name}: not a valid notebook ({str(error).splitlines()[0]}).")
            continue
        source = sources.get(path.resolve())
        problems = [*_file(path, notebook), *_parts(notebook), *_parameters(notebook), *_cells(notebook)]
        problems += [*_words(notebook, path.parent), *_minutes(notebook, readme.minutes(path.stem, root))]
        problems += _agreement(notebook, source, root)
        every += [f"{path.name}: {problem}" for problem in problems]
    return every


def _file(path: Path, notebook: NotebookNode) -> Iterator[str]:
    if path.stat().st_size >= MAX_BYTES:
        yield f"{path.stat().st_size / 1024:.0f} KB, at most {MAX_BYTES // 1024} are allowed: smaller or fewer figures."
    if "widgets" in notebook.metadata:
        yield "widget state in the metadata: use plain text progress instead."
    if "papermill" in notebook.metadata:
        yield "papermill's metadata: take the outputs with refresh_outputs."
    for match in ABSOLUTE.findall(str(notebook.metadata)):
        yield f"the metadata hold a path of this machine, {match}."


def _parts(notebook: NotebookNode) -> Iterator[str]:
    """The eight tags are there, in their order; a part may have several tagged cells, one after the other."""
    order = [PARTS.index(tag) for cell in notebook.cells for tag in map(_canonical, _tags(cell)) if tag in PARTS]
    missing = [part for place, part in enumerate(PARTS) if place not in order]
    if missing:
        yield f"no cell is tagged {', '.join(missing)}."
    for before, after in pairwise(order):
        if after < before:
            yield f"the part {PARTS[after]} comes after {PARTS[before]}."
    if notebook.cells and PARTS[0] not in _tags(notebook.cells[0]):
        yield "the first cell is not tagged card."
    for cell in notebook.cells:
        if NO_LIBRARY in _tags(cell) and (cell.cell_type != "markdown" or len(cell.source.split()) < 5):
            yield f"the cell tagged {NO_LIBRARY} has to give the reason in words."


def _parameters(notebook: NotebookNode) -> Iterator[str]:
    """One cell of typed and commented assignments, PROFILE among them."""
    cells = [cell for cell in notebook.cells if "parameters" in _tags(cell)]
    if len(cells) != 1 or cells[0].cell_type != "code":
        yield f"{len(cells)} cells are tagged parameters: it has to be one code cell."
        return
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        yield f"the parameters can't be read: {error.msg}."
        return
    lines = cells[0].source.splitlines()
    names = []
    for statement in statements:
        last = lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode()  # offsets are in bytes
        if not isinstance(statement, ast.AnnAssign) or statement.value is None:
            line = lines[statement.lineno - 1].strip()
            yield f"parameters: {line!r} is not written NAME: type = value  # what it is."
        elif not last.strip().startswith("#"):
            yield f"parameters: {ast.unparse(statement.target)} has no comment on its line that says what it is."
        names += [ast.unparse(statement.target)] if isinstance(statement, ast.AnnAssign) else []
    if "PROFILE" not in names:
        yield "parameters: PROFILE is missing."


def _words(notebook: NotebookNode, folder: Path) -> Iterator[str]:
    """Links lead somewhere, and prose leaves this machine's numbers to the cells that measure them."""
    part = PARTS[0]
    for number, cell in enumerate(notebook.cells, 1):
        part = next((tag for tag in map(_canonical, _tags(cell)) if tag in PARTS), part)
        if cell.cell_type != "markdown":
            continue
        for target in LINK.findall(cell.source):
            if not (folder / target).exists():
                yield f"cell {number}: the link to {target} leads nowhere."
        for match in MEASURED.findall(cell.source) if part != PARTS[-1] else ():
            yield f"cell {number}: {match!r} is typed into the prose: let a cell print what was measured."


def _minutes(notebook: NotebookNode, measured: float | None) -> Iterator[str]:
    """The card's minutes are those that the reference machine took under `cpu`, within reason: twice, or a minute."""
    on_card = MINUTES.search(notebook.cells[0].source) if notebook.cells else None
    if on_card is None:
        yield "the card does not say 'about N for the machine'."
        return
    minutes = int(on_card[1])
    if measured is not None and not min(minutes / 2, minutes - 1) <= measured <= max(2 * minutes, 2):
        yield f"the card says about {minutes} minutes for the machine; it took {measured:.1f}."


def _cells(notebook: NotebookNode) -> Iterator[str]:
    counts = []
    for number, cell in enumerate(notebook.cells, 1):
        for match in ABSOLUTE.findall(cell.source):
            yield f"cell {number}: a path of this machine, {match}."
        if cell.cell_type != "code":
            continue
        lines = cell.source.splitlines()
        if len(lines) > MAX_LINES:
            yield f"cell {number}: {len(lines)} lines of code, at most {MAX_LINES} are allowed."
        for line in lines:
            if len(line) > MAX_WIDTH:
                yield f"cell {number}: code wider than {MAX_WIDTH} characters: {line.strip()[:40]}"
        if "papermill" in cell.metadata:
            yield f"cell {number}: papermill's metadata: take the outputs with refresh_outputs."
        counts.append(cell.execution_count)
        for output in cell.outputs:
            yield from (f"cell {number}: {problem}" for problem in _output(output))
    if counts != list(range(1, len(counts) + 1)):
        yield "not executed from top to bottom: run it under papermill and take its outputs with refresh_outputs."


def _output(output: NotebookNode) -> Iterator[str]:
    """An error, a warning, a widget or a path of this machine."""
    if output.output_type == "error":
        yield f"an error in its outputs, {output.ename}."
    data = output.get("data", {})
    if any("widget" in kind for kind in data):
        yield "a widget in its outputs: use plain text."
    pieces = [output.get("text", "")] + [piece for kind, piece in data.items() if kind.startswith("text/")]
    text = "\n".join("".join(piece) for piece in pieces)
    if output.get("name") == "stderr" and text.strip():
        yield f"it wrote to stderr: {text.strip().splitlines()[0][:80]}"
    elif re.search(r"\w*Warning\b", text):
        yield f"a warning in its outputs: {re.search(r'.*Warning.*', text).group()[:80]}"
    for match in ABSOLUTE.findall(text):
        yield f"its outputs hold a path of this machine, {match}."


def _agreement(notebook: NotebookNode, source: Path | None, root: Path) -> Iterator[str]:
    """The notebook says what its source says."""
    if source is None:
        yield "there is no source for it in notebooks/source."
        return
    try:
        wanted = from_source(source, root)
        front_matter(source.stem, root)
    except CourseError as error:
        yield str(error)
        return
    is_now, to_be = ([(cell.id, cell.source, _tags(cell)) for cell in one.cells] for one in (notebook, wanted))
    if is_now != to_be:
        place = next((n for n, pair in enumerate(zip(is_now, to_be, strict=False), 1) if pair[0] != pair[1]), None)
        where = f"cell {place}" if place else f"{len(is_now)} cells, not {len(to_be)},"
        yield f"{where} differs from {source.name}: edit the source, then `make notebooks`."


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _canonical(tag: str) -> str:
    return "library" if tag == NO_LIBRARY else tag
