"""Real processes that compute together, started with one call and ended together (notebook 06).

As under torchrun each process is a rank, knows how many there are, and meets the others in a process group. PyTorch's
own launcher starts them. Whatever happens to one of them, none is left behind.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std, start_processes
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from helpers import files
from helpers.errors import CourseError
from helpers.files import write_whole

logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it names every signal that it sends

MODULE = "helpers.parallel.rank"
LOOPBACK = {"linux": "lo", "darwin": "lo0"}  # gloo would ask for the machine's name, which may have no address


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
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        threads = max(1, torch.get_num_threads() // world_size)
        request = dict(function=f"{function.__module__}:{function.__qualname__}", threads=threads, timeout=timeout)
        write_whole(folder / "request.json", json.dumps(request | {"arguments": dict(arguments or {})}))
        with _own_signals():
            started = start_processes(
                function.__qualname__,
                sys.executable,
                dict.fromkeys(range(world_size), ("-m", MODULE, place)),
                {rank: _environment(rank, world_size) for rank in range(world_size)},
                DefaultLogsSpecs(str(folder / "logs"), redirects=Std.ALL),
            )
            try:
                result = started.wait(timeout, period=0.05)
            finally:
                started.close(signal.SIGKILL)
        if result is None:
            raise RankError(f"{world_size} processes were not done after {timeout:g} s and were ended: one may wait.")
        if show:
            _show(result.stdouts)
        if result.failures:
            raise RankError(_reason(result.failures, folder, result.stderrs, world_size))
        return [json.loads((folder / f"answer-{rank}.json").read_text()) for rank in range(world_size)]


def _environment(rank: int, world_size: int) -> dict[str, str]:
    place = {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_RANK": rank, "PYTHONPATH": files.ROOT}
    if sys.platform in LOOPBACK:
        place["GLOO_SOCKET_IFNAME"] = LOOPBACK[sys.platform]
    return os.environ | {"TOKENIZERS_PARALLELISM": "false"} | {name: str(value) for name, value in place.items()}


@contextmanager
def _own_signals() -> Iterator[None]:
    """The launcher takes signals over; afterwards they do what they did before. An interrupt is one inside, too."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    except SignalException as end:
        raise KeyboardInterrupt from end
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _show(outputs: Mapping[int, str]) -> None:
    for rank, path in sorted(outputs.items()):
        for line in Path(path).read_text(errors="replace").splitlines():
            print(f"rank {rank} | {line}")


def _reason(failures: Mapping[int, ProcessFailure], folder: Path, errors: Mapping[int, str], world_size: int) -> str:
    """Who stopped first, and why. A rank that a signal ended leaves no message, and those that waited for it fail, too:
    so it counts before them. SIGTERM is what the launcher ends the others with."""
    own = [rank for rank, failure in failures.items() if failure.exitcode != -signal.SIGTERM] or list(failures)
    told = {path.stem: json.loads(path.read_text()) for path in folder.glob("failed-*.json")}

    def order(rank: int) -> tuple[bool, float]:
        return failures[rank].exitcode >= 0, told.get(f"failed-{rank}", {}).get("time", 0.0)

    first = min(own, key=order)
    if failures[first].exitcode < 0:
        why = f"signal {failures[first].signal_name()} ended it; too little memory, perhaps"
    elif f"failed-{first}" in told:
        why = told[f"failed-{first}"]["why"]
    else:
        lines = Path(errors[first]).read_text(errors="replace").strip().splitlines() or ["no message"]
        why = next((line for line in reversed(lines) if "Error" in line), lines[-1])
    return f"Rank {first} of {world_size} stopped: {why.rstrip('.')}. The others were ended."
