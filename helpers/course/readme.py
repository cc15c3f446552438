"""The README's table of notebooks, made from the notebooks and the reference results: no number is typed by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import nbformat

from helpers import files
from helpers.course.notebooks import front_matter, notebook_files
from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.notebook.results import load

BEGIN, END = "<!-- notebooks: made by `python -m helpers notebooks` -->", "<!-- end of notebooks -->"
FIELD = re.compile(r"\{([\w.]+)(?::([^}]+))?\}")  # {key:format}; a key has dots, which str.format would follow


def reference(name: str, root: Path = files.ROOT, profiles: Sequence[str] = ("full", "cpu")) -> dict | None:
    """A notebook's results on the first named machine, of the first profile for which they are kept; None without."""
    for profile in profiles:
        for path in sorted((root / "data" / "reference_results").glob(f"*/{profile}/{name}.json")):
            return load(profile, name, path.parents[1])
    return None


def table(root: Path = files.ROOT) -> str:
    """A row for each notebook: its question, the machine's minutes, its result on the reference machine."""
    rows = ["| notebook | its question | minutes here | what was measured |", "|---|---|---|---|"]
    for path in notebook_files(root):
        notebook = nbformat.read(path, as_version=4)
        question = re.search(r"\*\*(.+?)\*\*", notebook.cells[0].source, re.DOTALL).group(1)
        measured = minutes(path.stem, root)
        duration = f"{max(1, round(measured))}" if measured else "not run yet"
        link = f"[{path.stem.replace('_', ' ')}]({path.relative_to(root).as_posix()})"
        rows.append(f"| {link} | {question} | {duration} | {headline(path.stem, root)} |")
    return "\n".join(rows)


def minutes(name: str, root: Path = files.ROOT) -> float | None:
    """What the notebook takes under the profile that learners start with, on the reference machine; None if unknown."""
    document = reference(name, root, ("cpu",))
    return document["seconds"] / 60 if document else None


def headline(name: str, root: Path = files.ROOT) -> str:
    """The sentence that sums a notebook up, with the numbers of the reference machine; empty before it has any."""
    document = reference(name, root)
    if document is None:
        return ""
    values = {key: row["value"] for key, row in document["metrics"].items()}
    values |= {f"{key}.n": row["n"] for key, row in document["metrics"].items() if "n" in row}
    values |= {f"{key}.{part}": row[part] for key, row in document["invariants"].items() for part in ("count", "of")}
    try:
        return FIELD.sub(lambda m: format(values[m[1]], m[2] or ""), front_matter(name, root).headline)
    except KeyError as missing:
        raise CourseError(
            f"The results of {name} have no {missing.args[0]}: correct the headline of its source."
        ) from None


def refresh(root: Path = files.ROOT) -> bool:
    """Put the table into README.md; returns whether it changed."""
    path = root / "README.md"
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise CourseError(f"README.md has lost the line {BEGIN} or {END}: put both back where the table belongs.")
    made = f"{BEGIN}\n{table(root)}\n{END}"
    new = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: made, text, flags=re.DOTALL)
    if new != text:
        write_whole(path, new)
    return new != text


def keep_reference(machine: str, profile: str, root: Path = files.ROOT) -> list[Path]:
    """Copy a profile's results to data/reference_results/<machine>, as they were measured."""
    kept = []
    paths = sorted((build_root() / "results" / profile).glob("[0-9]*.json*"))
    if not paths:
        raise CourseError(
            f"There are no results of {profile} to keep: `python -m helpers run --profile {profile}` first."
        )
    for path in paths:
        if ".predictions" not in path.name:
            copy = root / "data" / "reference_results" / machine / profile / path.name
            kept.append(write_whole(copy, path.read_text(encoding="utf-8")))
    return kept
