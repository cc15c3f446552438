"""The commit whose code made the reference results: noted when they are kept, beside them, and named in the README."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from helpers.files import write_whole

COMMITS = "commits.json"  # in data/reference_results/<machine>/<profile>: {notebook: commit or null}
MEASURED_CODE = ("helpers", "notebooks/source", "data/models", "data/text_to_sql", "requirements")


def note_commits(path: Path, kept: Mapping[str, bool], root: Path) -> None:
    """Note the present commit for newly kept results; `kept` says of each notebook whether its code and model are still
    those that were measured. Where they aren't, nobody knows the commit any more."""
    if kept:
        now = current_commit(root)
        noted = _read(path) | {name: now if current else None for name, current in kept.items()}
        write_whole(path, json.dumps(dict(sorted(noted.items())), indent=1) + "\n")


def current_commit(root: Path) -> str | None:
    """The checkout's commit, with a plus sign where measured code is not committed; None outside of a repository."""
    commit = _git(root, "rev-parse", "--short=10", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", *MEASURED_CODE)
    return None if commit is None else f"{commit}+" if changed else commit


def commits_of(folder: Path) -> str:
    """In words, the commits at which a profile's results were measured, with their notebooks where they differ."""
    noted = _read(folder / COMMITS)
    names = sorted(path.stem for path in folder.glob("[0-9]*.json"))
    by_commit: dict[str | None, list[str]] = {}
    for name in names:
        by_commit.setdefault(noted.get(name), []).append(name.split("_")[0])
    written = [f"{_words(commit)} ({', '.join(numbers)})" for commit, numbers in by_commit.items()]
    return _words(next(iter(by_commit), None)) if len(by_commit) < 2 else ", ".join(written)


def _words(commit: str | None) -> str:
    if commit is None:
        return "a commit that was not noted"
    return f"commit {commit.removesuffix('+')}" + " with changes that were not committed" * commit.endswith("+")


def _read(path: Path) -> dict[str, str | None]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git or no repository."""
    try:
        run = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None
