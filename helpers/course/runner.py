"""Runs the course: every notebook in order with papermill, in this interpreter's kernel, on this machine.

`run(...)` refuses bad input before anything starts, reports a failing notebook with its cell and goes on with the rest,
remembers what finished (build/run-<profile>.json) so that a run that was stopped resumes, and leaves executed copies in
build/notebooks/<profile>/ and build/report/index.html after each notebook.
"""

import ast
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from helpers import files
from helpers.course import report
from helpers.course.kernel import (
    Watch,
    cell_seconds,
    clock,
    course_kernel,
    describe_failure,
    execute,
    sigterm_as_interrupt,
)
from helpers.course.notebooks import front_matter
from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.notebook import provenance, results
from helpers.notebook.profiles import PROFILES

GUESS_MINUTES = 10.0  # for a notebook that never ran, under a profile without a budget

PARAMETER_TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool}


@dataclass(frozen=True)
class Notebook:
    """One .ipynb: `number` is "00", `name` is "00_start_here"."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return self.path.stem.split("_")[0]


def find_notebooks(root: Path = files.ROOT, only: Sequence[str] | None = None) -> list[Notebook]:
    """The course in order, then the extras; `only` picks by number ("00") or name ("00_start_here")."""
    folder = root / "notebooks"
    every = [Notebook(path) for place in (folder, folder / "extras") for path in sorted(place.glob("[0-9]*_*.ipynb"))]
    if not only:
        if not every:
            raise CourseError(f"There are no notebooks in {folder}: build them with `make notebooks`.")
        return every
    for number_or_name in only:
        if not any(number_or_name in (notebook.number, notebook.name) for notebook in every):
            known = ", ".join(dict.fromkeys(notebook.number for notebook in every))
            raise CourseError(f"There is no notebook {number_or_name}; there are {known or 'none yet'}.")
    return [notebook for notebook in every if notebook.number in only or notebook.name in only]


def parse_parameters(pairs: Sequence[str]) -> dict[str, object]:
    """["SEED=3", "MODEL_ID=data/models/base"] as a dictionary, values as Python reads them, else as text."""
    parameters: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise CourseError(f"A parameter is written NAME=VALUE, for example SEED=3, not {pair!r}.")
        parameters[name] = text
        with suppress(ValueError, SyntaxError):
            parameters[name] = ast.literal_eval(text)
    return parameters


def parameters_of(notebook: Notebook, profile: str, given: Mapping[str, object]) -> dict[str, object]:
    """Those of the given parameters (and PROFILE) that the notebook declares; refuses values of another type."""
    known = _declared(notebook)
    chosen = {name: value for name, value in {"PROFILE": profile, **given}.items() if name in known}
    for name, value in chosen.items():
        declared = known[name]["inferred_type_name"]
        wanted = PARAMETER_TYPES.get(declared, object)
        if not isinstance(value, wanted) or (isinstance(value, bool) and declared in ("int", "float")):
            raise CourseError(f"The parameter {name} of {notebook.name} is of type {declared}: {value!r} is not.")
    return chosen


def run(
    profile: str = "cpu",
    only: Sequence[str] | None = None,
    resume: bool = False,
    parameters: Mapping[str, object] | None = None,
    output_root: Path | None = None,
    root: Path = files.ROOT,
    say: Callable[[str], None] = print,
) -> int:
    """Run notebooks; returns an exit code: 0, 1 where a notebook failed, 130 where it was interrupted.

    `output_root` takes the place of build/. Raises CourseError, before anything runs, for an unknown profile, notebook
    or parameter.
    """
    if profile not in PROFILES:
        raise CourseError(f"There is no profile {profile}; there are {', '.join(PROFILES)}.")
    notebooks = find_notebooks(root, only)
    plan = _plan(notebooks, profile, dict(parameters or {}))
    out = Path(output_root or build_root()).resolve()
    state = State(out / f"run-{profile}.json")
    with course_kernel(out, PROFILES[profile].offline), sigterm_as_interrupt():
        try:
            return _run_all(plan, Run(profile, root, out, state, say), resume)
        except KeyboardInterrupt:
            say("Stopped. What finished is kept: the same command with --resume goes on from here.")
            return 130


class State:
    """What happened to each notebook under one profile, on disk after every change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notebooks: dict[str, dict] = {}
        with suppress(OSError, ValueError):  # no file yet, or a damaged one: every notebook runs again
            self.notebooks = json.loads(path.read_text(encoding="utf-8"))["notebooks"]

    def note(self, name: str, **record: object) -> None:
        """Keep the record, and the minutes of the last complete run for the next estimate."""
        minutes = self.notebooks.get(name, {}).get("minutes")
        self.notebooks[name] = {"minutes": minutes, **record}
        write_whole(self.path, json.dumps({"notebooks": self.notebooks}, indent=1))


@dataclass
class Run:
    """One call of `run`: where things go, and how to speak."""

    profile: str
    root: Path
    out: Path
    state: State
    say: Callable[[str], None]

    def copy_of(self, notebook: Notebook) -> Path:
        """Where the executed copy goes."""
        return self.out / "notebooks" / self.profile / f"{notebook.name}.ipynb"

    def key(self, notebook: Notebook, parameters: Mapping) -> str:
        """Changes when the notebook, code that it reaches or a parameter does."""
        return f"{provenance.code_hash(notebook.name, self.root)} {json.dumps(parameters, sort_keys=True, default=str)}"

    def minutes(self, notebook: Notebook) -> float:
        """What the notebook will take: as last time, here or where it was committed, else its budget."""
        noted = self.state.notebooks.get(notebook.name, {}).get("minutes")
        committed = json.loads(notebook.path.read_text(encoding="utf-8"))["metadata"].get("course", {})
        if not noted and committed.get("profile") == self.profile:
            noted = committed["seconds"] / 60
        return noted or self.budget(notebook) or GUESS_MINUTES

    def budget(self, notebook: Notebook) -> float | None:
        """Minutes that the notebook may take: under `cpu` those of its source's header."""
        if self.profile == "cpu":
            return front_matter(notebook.name, self.root).minutes
        return PROFILES[self.profile].minutes

    def finished(self, notebook: Notebook, parameters: Mapping) -> bool:
        """Whether a run of exactly this, on the models as they are, ended well, and its copy is still there."""
        record = self.state.notebooks.get(notebook.name, {})
        if record.get("status") != "ok" or record.get("key") != self.key(notebook, parameters):
            return False
        with suppress(CourseError):  # a notebook without results has no model either
            document = results.load(self.profile, notebook.name, self.out / "results")
            return "model" not in results.stale(document, self.root) and self.copy_of(notebook).exists()
        return self.copy_of(notebook).exists()


def _plan(notebooks: list[Notebook], profile: str, given: dict) -> list[tuple[Notebook, dict]]:
    """Each notebook with its parameters; refuses a parameter that none of them has (papermill would only warn)."""
    known = {name: True for notebook in notebooks for name in _declared(notebook)}
    for name in given:
        if name not in known:
            raise CourseError(f"There is no parameter {name} here; there are {', '.join(known) or 'none'}.")
    return [(notebook, parameters_of(notebook, profile, given)) for notebook in notebooks]


def _declared(notebook: Notebook) -> dict[str, dict]:
    import papermill  # a second to import: refusing an unknown profile doesn't wait for it

    return papermill.inspect_notebook(str(notebook.path))


def _run_all(plan: list[tuple[Notebook, dict]], this: Run, resume: bool) -> int:
    done = {notebook.name for notebook, parameters in plan if resume and this.finished(notebook, parameters)}
    if done:
        this.say(f"Already done: {', '.join(sorted(done))}.")
    todo = [(notebook, parameters) for notebook, parameters in plan if notebook.name not in done]
    failed = []
    for place, (notebook, parameters) in enumerate(todo, 1):
        left = sum(this.minutes(other) for other, _ in todo[place - 1 :])
        expected = this.minutes(notebook)
        this.say(f"[{place}/{len(todo)}] {notebook.name}: about {clock(expected)}; {clock(left)} left in all")
        failed += [] if _run_one(notebook, parameters, this) else [notebook.name]
        _report(this)
    if done and not todo:
        _report(this)
    this.say(f"{len(plan) - len(failed)} of {len(plan)} notebooks ran well; {this.out / 'report' / 'index.html'}")
    return 1 if failed else 0


def _run_one(notebook: Notebook, parameters: dict, this: Run) -> bool:
    """Run one notebook and note what happened; True where it ended well."""
    key, began = this.key(notebook, parameters), time.perf_counter()
    this.state.note(notebook.name, status="running", key=key)
    watch = Watch(notebook.name, began, this.minutes(notebook))
    try:
        execute(notebook.path, this.copy_of(notebook), parameters, PROFILES[this.profile].cell_timeout, watch)
        failure = None
    except KeyboardInterrupt:
        this.state.note(notebook.name, status="interrupted", key=key)
        raise
    except Exception as error:  # whatever a notebook does, the others still run
        failure = describe_failure(error, watch)
    minutes = (time.perf_counter() - began) / 60
    cells, seconds = cell_seconds(this.copy_of(notebook)), round(60 * minutes, 1)
    record = {"key": key, "seconds": seconds, "budget": this.budget(notebook), "cells": cells}
    if failure:
        this.say(f"    FAILED {failure['cell']} ({failure['line']}): {failure['error']}")
        this.state.note(notebook.name, status="failed", failure=failure, **record)
        return False
    over = f", over its budget of {clock(record['budget'])}" if minutes > (record["budget"] or minutes) else ""
    this.say(f"    done in {clock(minutes)}{over}")
    this.state.note(notebook.name, status="ok", **{**record, "minutes": round(minutes, 3)})
    return True


def _report(this: Run) -> None:
    """A report that can't be written must not end a run of hours."""
    try:
        report.write_report(this.profile, this.out, this.root)
    except Exception as error:
        this.say(f"    the report was not written: {error}")
