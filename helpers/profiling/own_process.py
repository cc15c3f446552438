"""An engine in a process of its own: what it is to answer goes in as JSON, tokens and seconds come out (08, 08b).

Engines take hold of their process's threads and memory; so each has a process to itself, and all are asked in the same
way: greedily, prompts as token ids, one request or batch after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from helpers import files
from helpers.errors import CourseError
from helpers.files import write_whole


@dataclass(frozen=True)
class Workload:
    """Prompts (token ids) that are answered in the order in which they stand, `batch_size` of them at a time; before
    the clock runs those of the `warmup`. These are others, since some engines know an answer that they gave before."""

    prompts: Sequence[Sequence[int]]
    batch_size: int = 1
    max_new_tokens: int = 256
    warmup: Sequence[Sequence[int]] = ()

    def batches(self, prompts: Sequence[Sequence[int]]) -> list[Sequence[Sequence[int]]]:
        return [prompts[i : i + self.batch_size] for i in range(0, len(prompts), self.batch_size)]

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return max(map(len, [*self.prompts, *self.warmup])) + self.max_new_tokens


@dataclass(frozen=True)
class Answers:
    """Each prompt's answer, the end-of-sequence token included; the seconds of each batch; what the engine counted."""

    token_ids: list[list[int]]
    seconds: list[float]
    counts: dict = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all answers over the time of whole requests, prefill and all."""
        return sum(map(len, self.token_ids)) / sum(self.seconds)


class Engine(Protocol):
    """What a process's side has to offer."""

    def answer(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """The greedy answers to these prompts, written at the same time."""

    def counts(self) -> dict:
        """What has been counted so far, numbers or lists of them; of a workload the difference is kept."""


def ask(
    module: str,
    settings: Mapping[str, object],
    workloads: Mapping[str, Workload],
    *,
    name: str,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Answers]:
    """Start `python -m module`, whose main calls `reply`, with settings that JSON can hold; returns its answers by
    their names. CourseError, with the last line of what it wrote, where `name` stops."""
    request = {"settings": dict(settings), "workloads": {key: asdict(load) for key, load in workloads.items()}}
    answers = exchange(module, request, name=name, environment=environment)
    return {key: Answers(**row) for key, row in answers.items()}


def exchange(module: str, request: Mapping, *, name: str, environment: Mapping[str, str] | None = None) -> dict:
    """Start `python -m module folder`, which finds request.json there and leaves answer.json; returns that."""
    with tempfile.TemporaryDirectory() as folder:
        write_whole(Path(folder) / "request.json", json.dumps(request))
        environment = os.environ | dict(environment or {}) | {"PYTHONPATH": str(files.ROOT)}
        command = [sys.executable, "-m", module, folder]
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
        answer = Path(folder) / "answer.json"
        if process.returncode or not answer.exists():
            lines = process.stderr.strip().splitlines() or ["it left no message"]
            last = next((line for line in reversed(lines) if "Error" in line), lines[-1])
            raise CourseError(f"{name} stopped with code {process.returncode}: {last}")
        return json.loads(answer.read_text())


def folder_of_command_line(description: str) -> Path:
    """Where request.json is and answer.json goes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path, help="where request.json is and answer.json goes")
    return parser.parse_args().folder


class Request:
    """What a process was asked: `settings`, and `workloads` by name."""

    def __init__(self, folder: Path):
        request = json.loads((folder / "request.json").read_text())
        self.folder, self.settings = folder, request["settings"]
        self.workloads = {key: Workload(**load) for key, load in request["workloads"].items()}

    @classmethod
    def of_command_line(cls, description: str) -> Request:
        return cls(folder_of_command_line(description))

    def reply(self, engines: Iterable[tuple[str, str, Engine]]) -> None:
        """For each (name of the answers, name of a workload, engine): answer it on the clock. All is written down."""
        answers = {name: asdict(timed(engine, self.workloads[load])) for name, load, engine in engines}
        write_whole(self.folder / "answer.json", json.dumps(answers))


def timed(engine: Engine, load: Workload) -> Answers:
    """A workload answered on the clock, after a warm-up."""
    for batch in load.batches(load.warmup):
        engine.answer(batch, load.max_new_tokens)
    before, token_ids, seconds = engine.counts(), [], []
    for batch in load.batches(load.prompts):
        began = time.perf_counter()
        answers = engine.answer(batch, load.max_new_tokens)
        seconds.append(time.perf_counter() - began)
        token_ids += answers
    after = engine.counts()
    return Answers(token_ids, seconds, {key: _difference(value, before.get(key)) for key, value in after.items()})


def _difference(after, before):
    if before is None:
        return after
    return [a - b for a, b in zip(after, before)] if isinstance(after, list) else after - before
