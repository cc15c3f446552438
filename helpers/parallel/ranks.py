"""Real processes that compute together, started with one call and ended together (notebook 06).

As under torchrun each process is a rank, knows how many there are, and meets the others in a process group. Python's
fork server starts them: it has imported PyTorch once, and each rank is a copy of it. Whatever happens to one of them,
none is left behind.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.parallel import rank

IMPORTED = ["helpers.parallel.runs"]  # by the fork server, so that no rank has to


class RankError(CourseError):
    """One of several processes stopped, or all of them took too long."""


def on_ranks(
    function: Callable, world_size: int, arguments: Mapping | None = None, *, timeout: float = 900, show: bool = True
) -> list:
    """`function(**arguments)` in `world_size` processes of one group; returns what each returned, by rank.

    Arguments and answers are what JSON can hold. What the processes print is shown, rank by rank.

    Args:
        function: of a module that the processes can import.
        timeout: seconds until all are ended.

    Raises:
        RankError: a process stopped, or the time is up. The others are ended, too.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        threads = max(1, torch.get_num_threads() // world_size)
        request = dict(function=f"{function.__module__}:{function.__qualname__}", threads=threads, timeout=timeout)
        write_whole(folder / "request.json", json.dumps(request | {"arguments": dict(arguments or {})}))
        environment = dict(os.environ)
        started = [
            context.Process(target=rank.main, args=(place, each, world_size, environment)) for each in range(world_size)
        ]
        try:
            for process in started:
                process.start()
            in_time = _wait(started, timeout)
            codes = [process.exitcode for process in started]
        finally:
            _end(started)
        if show:
            _show(folder, world_size)
        if any(codes):
            raise RankError(_reason(codes, folder))
        if not in_time:
            raise RankError(f"{world_size} processes were not done after {timeout:g} s and were ended: one may wait.")
        return [json.loads((folder / f"answer-{each}.json").read_text()) for each in range(world_size)]


def _wait(started: Sequence[BaseProcess], timeout: float) -> bool:
    """Until all are done, or one has failed; False where the time is up."""
    end, running = time.monotonic() + timeout, {process.sentinel: process for process in started}
    while running:
        ended = connection.wait(list(running), max(0.0, end - time.monotonic()))
        if not ended:
            return False
        for sentinel in ended:
            running[sentinel].join()
            if running.pop(sentinel).exitcode:
                return True
    return True


def _end(started: Sequence[BaseProcess]) -> None:
    alive = [process for process in started if process.pid is not None]
    for process in alive:
        process.kill()
    for process in alive:
        process.join()


def _show(folder: Path, world_size: int) -> None:
    for each in range(world_size):
        printed = folder / f"printed-{each}"
        for line in printed.read_text(errors="replace").splitlines() if printed.exists() else ():
            print(f"rank {each} | {line}")


def _reason(codes: Sequence[int | None], folder: Path) -> str:
    """Who stopped first, and why. A rank that a signal ended leaves no message, and those that waited for it fail, too:
    so it counts before them."""
    ended = [each for each, code in enumerate(codes) if code]
    by_signal = [each for each in ended if codes[each] < 0]
    failed = {int(path.stem.split("-")[1]): json.loads(path.read_text()) for path in folder.glob("failed-*.json")}
    if by_signal:
        first = by_signal[0]
        why = f"signal {signal.Signals(-codes[first]).name} ended it; too little memory, perhaps"
    elif failed:
        first = min(failed, key=lambda each: failed[each]["time"])
        why = failed[first]["why"]
    else:
        first, why = ended[0], f"it ended with code {codes[ended[0]]} and no message"
    return f"Rank {first} of {len(codes)} stopped: {why.rstrip('.')}. The others were ended."
