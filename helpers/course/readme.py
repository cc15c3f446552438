"""The README's table of notebooks, made from the notebooks and the reference results: no number is typed by hand.

A column holds numbers of one profile, and all numbers are of one machine: `minutes` are those of `cpu`, everything else
is of `full`. A notebook whose code or model changed since is marked stale.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat

from helpers import files
from helpers.course.commits import COMMITS, commits_of, note_commits
from helpers.course.notebooks import front_matter, notebook_files
from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.notebook.results import load, stale

BEGIN, END = "<!-- notebooks: made by `python -m helpers notebooks` -->", "<!-- end of notebooks -->"
FIELD = re.compile(r"\{([\w.]+)(?::([^}]+))?\}")  # {key:format}; a key has dots, which str.format would follow
MINUTES, MEASURED = "cpu", "full"  # the profiles that the columns quote
# What a notebook calls its share of right answers; the first that it has is its final model's.
ACCURACIES = ("fine_tuned_execution_accuracy", "execution_accuracy", "base_execution_accuracy")
HANDWRITTEN = ("handwritten_execution_accuracy",)


def table(root: Path = files.ROOT) -> str:
    """Where and when it was measured, and a row for each notebook."""
    rows = [
        f"| notebook | its question | minutes (`{MINUTES}`) | what was measured (`{MEASURED}`) "
        f"| SQL right (`{MEASURED}`): test; handwritten |",
        "|---|---|---|---|---|",
    ]
    found, any_stale = [], False
    for path in notebook_files(root):
        measured, timed = (reference(path.stem, profile, root) for profile in (MEASURED, MINUTES))
        documents = [document for document in (measured, timed) if document]
        old = is_stale(documents, root)
        found, any_stale = found + documents, any_stale or old
        notebook = nbformat.read(path, as_version=4)
        question = re.search(r"\*\*(.+?)\*\*", notebook.cells[0].source, re.DOTALL).group(1)
        link = f"[{path.stem.replace('_', ' ')}]({path.relative_to(root).as_posix()})" + " **(stale)**" * old
        duration = str(max(1, round(timed["seconds"] / 60))) if timed else "not run yet"
        sentence = headline_of(measured, root) if measured else f"not measured under `{MEASURED}` yet"
        rows.append(f"| {link} | {question} | {duration} | {sentence} | {accuracy_of(measured) if measured else ''} |")
    return "\n".join([*provenance(found, any_stale, root), "", *rows])


def provenance(documents: Sequence[Mapping], any_stale: bool, root: Path = files.ROOT) -> list[str]:
    """The lines above the table: the machine, the commits, and what stale means."""
    folder = machine_folder(root)
    if folder is None or not documents:
        return ["Nothing was measured yet."]
    machine = documents[0]["machine"]
    words = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.1f} GiB of memory, "
    words += machine["accelerator"] or "no accelerator"
    commits = [f"`{profile}` at {commits_of(folder / profile)}" for profile in (MEASURED, MINUTES)]
    lines = [f"Measured on {words} (`{folder.relative_to(root).as_posix()}`): {'; '.join(commits)}."]
    if any_stale:
        lines.append("Stale: the notebook's code or model changed since; its numbers are those of the version before.")
    return lines


def machine_folder(root: Path = files.ROOT) -> Path | None:
    """The folder of the reference machine: the first that has results of the profile that the table quotes."""
    folders = [path for path in sorted((root / "data" / "reference_results").glob("*")) if path.is_dir()]
    complete = [path for path in folders if any((path / MEASURED).glob("[0-9]*.json"))]
    return next(iter([*complete, *folders]), None)


def reference(name: str, profile: str, root: Path = files.ROOT) -> dict | None:
    """A notebook's results on the reference machine; None where it has none of this profile."""
    folder = machine_folder(root)
    path = folder / profile / f"{name}.json" if folder else None
    return load(profile, name, folder) if path and path.exists() else None


def minutes(name: str, root: Path = files.ROOT) -> float | None:
    """What the notebook takes under the profile that learners start with, on the reference machine; None if unknown."""
    document = reference(name, MINUTES, root)
    return document["seconds"] / 60 if document else None


def headline(name: str, root: Path = files.ROOT) -> str:
    """The sentence that sums a notebook up, with the numbers of the reference machine; empty before it has any."""
    document = reference(name, MEASURED, root)
    return headline_of(document, root) if document else ""


def headline_of(document: Mapping, root: Path = files.ROOT) -> str:
    """The sentence of the notebook's source with the numbers of these results."""
    name = document["notebook"]
    values = {key: row["value"] for key, row in document["metrics"].items()}
    values |= {f"{key}.n": row["n"] for key, row in document["metrics"].items() if "n" in row}
    values |= {f"{key}.{part}": row[part] for key, row in document["invariants"].items() for part in ("count", "of")}
    try:
        return FIELD.sub(lambda m: format(values[m[1]], m[2] or ""), front_matter(name, root).headline)
    except KeyError as missing:
        raise CourseError(
            f"The results of {name} have no {missing.args[0]}: correct the headline of its source."
        ) from None


def accuracy_of(document: Mapping) -> str:
    """The share of test questions and of handwritten questions that the notebook's model answers rightly."""
    shares = [_share(document, names) for names in (ACCURACIES, HANDWRITTEN)]
    return "; ".join(share or "-" for share in shares) if any(shares) else ""


def _share(document: Mapping, names: tuple[str, ...]) -> str:
    """ "84.7% of 450", of the first of these names that the notebook has."""
    for name in names:
        for key, row in document["metrics"].items():
            if key.split(".")[1:] == [name] and row["kind"] == "measured":
                return f"{row['value']:.1%}" + (f" of {row['n']}" if "n" in row else "")
    return ""


def is_stale(documents: Sequence[Mapping], root: Path = files.ROOT) -> bool:
    """Whether the code or the model changed since one of these results was measured."""
    return any(_changed(document, root) for document in documents)


def _changed(document: Mapping, root: Path) -> bool:
    changed = stale(document, root)
    not_here = [model for model in document["models"] if model.startswith("build/") and not (root / model).is_dir()]
    return "code" in changed or ("model" in changed and not not_here)  # what wasn't made here yet can't be compared


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
    """Copy a profile's results to data/reference_results/<machine>, as they were measured, and note the commit."""
    kept, fresh = [], []
    paths = sorted((build_root() / "results" / profile).glob("[0-9]*.json*"))
    if not paths:
        raise CourseError(
            f"There are no results of {profile} to keep: `python -m helpers run --profile {profile}` first."
        )
    folder = root / "data" / "reference_results" / machine / profile
    for path in paths:
        if ".predictions" not in path.name:
            text, copy = path.read_text(encoding="utf-8"), folder / path.name
            if path.suffix == ".json" and not (copy.exists() and copy.read_text(encoding="utf-8") == text):
                fresh.append(json.loads(text))
            kept.append(write_whole(copy, text))
    note_commits(folder / COMMITS, {document["notebook"]: not _changed(document, root) for document in fresh}, root)
    return kept
