"""A server in a process of its own: vLLM's, or the course's (notebooks 11b and 12)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import httpx

from helpers import files
from helpers.errors import CourseError
from helpers.serving import watched_process
from helpers.serving.run import LOOPBACK, listening_socket

PATIENCE = 600  # seconds until it serves: vLLM compiles first
FAREWELL = 30  # seconds for its end


def free_port() -> int:
    """A port of the loopback interface that nobody has at this moment."""
    with listening_socket() as taken:
        return taken.getsockname()[1]


class ServerProcess:
    """`python -m module --option value ...`, started at once; it ends with this process. An option whose value is True
    stands alone."""

    def __init__(
        self, name: str, module: str, options: Mapping[str, object], environment: Mapping[str, str], port: int
    ):
        pairs = ([f"--{key}"] if value is True else [f"--{key}", str(value)] for key, value in options.items())
        command = [sys.executable, watched_process.__file__, "-m", module, *(word for pair in pairs for word in pair)]
        environment = os.environ | dict(environment)
        self.name, self.url = name, f"http://{LOOPBACK}:{port}"
        self._log = tempfile.TemporaryFile("w+", errors="replace")
        pipes = dict(stdin=subprocess.PIPE, stdout=self._log, stderr=self._log)
        self._process = subprocess.Popen(command, env=environment, cwd=files.ROOT, start_new_session=True, **pipes)

    def wait(self) -> None:
        """Until it answers /health.

        Raises:
            CourseError: it stops, with the last error of its log, or isn't there in time.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise CourseError(f"{self.name} stopped: {self._last_error()}")
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.2)
        raise CourseError(f"{self.name} was not there after {PATIENCE} s.")

    def end(self) -> None:
        """What was accepted is answered; then all of its processes end."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(FAREWELL)
        self._process.stdin.close()

    def _last_error(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()] or ["it left no message"]
        errors = [line for line in reversed(lines) if "Error: " in line]
        # vLLM's engine fails first, and its server only says so.
        return next((line for line in errors if "See root cause above" not in line), lines[-1])


@contextmanager
def server_process(
    name: str, module: str, options: Mapping[str, object], environment: Mapping[str, str], port: int
) -> Iterator[str]:
    """A server for as long as the block lasts; gives its address once it answers."""
    process = ServerProcess(name, module, options, environment, port)
    try:
        process.wait()
        yield process.url
    finally:
        process.end()
