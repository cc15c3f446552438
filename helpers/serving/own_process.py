"""A server in a process of its own, for as long as a block lasts: vLLM's, or the course's (notebook 11b)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO

import httpx

from helpers import files
from helpers.errors import CourseError
from helpers.serving.run import LOOPBACK, listening_socket

PATIENCE = 600  # seconds until it serves: vLLM compiles first
FAREWELL = 30  # seconds for its end


def free_port() -> int:
    """A port of the loopback interface that nobody has at this moment."""
    with listening_socket() as taken:
        return taken.getsockname()[1]


@contextmanager
def server_process(
    name: str, module: str, options: Mapping[str, object], environment: Mapping[str, str], port: int
) -> Iterator[str]:
    """`python -m module --option value ...`, once it answers /health at this port; gives its address. An option whose
    value is True stands alone.

    Raises:
        CourseError: it stops, with the last error of its log, or isn't there in time.
    """
    pairs = ([f"--{key}"] if value is True else [f"--{key}", str(value)] for key, value in options.items())
    command = [sys.executable, "-m", module, *(word for pair in pairs for word in pair)]
    environment = os.environ | {"PYTHONPATH": str(files.ROOT)} | dict(environment)
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(name, process, f"http://{LOOPBACK}:{port}", log)
            yield f"http://{LOOPBACK}:{port}"
        finally:
            _end(process)


def _wait(name: str, process: subprocess.Popen, url: str, log: IO[str]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise CourseError(f"{name} stopped: {_last_error(log)}")
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise CourseError(f"{name} was not there after {PATIENCE} s.")


def _last_error(log: IO[str]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()] or ["it left no message"]
    return _first([line for line in reversed(lines) if "Error: " in line]) or lines[-1]


def _first(lines: Sequence[str]) -> str:
    """vLLM's engine fails first, and its server only says so."""
    return next((line for line in lines if "See root cause above" not in line), "")


def _end(process: subprocess.Popen) -> None:
    """All of its processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(FAREWELL)
