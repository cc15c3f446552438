"""`vllm serve` for as long as a block lasts: vLLM's own server, in processes of its own (notebook 11b).

It is started by its module: the command asks for the package `vllm`, and the build for CPUs goes by another name.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from helpers import files
from helpers.errors import CourseError
from helpers.profiling import vllm_baseline
from helpers.serving.run import LOOPBACK, listening_socket

PATIENCE = 300  # seconds until it serves; for its end a tenth


@contextmanager
def vllm_serve(
    model: Path, *, dtype: str, longest: int, seats: int = 16, speculative: Mapping | None = None
) -> Iterator[str]:
    """vLLM's server for the model in a folder, which goes by the name "served"; gives its address.

    Args:
        longest: tokens of prompt and answer together; seats: sequences at a time.
        speculative: vLLM's speculative_config, {"method": "ngram", ...}, say.

    Raises:
        CourseError: vLLM isn't installed, stops, or doesn't serve in time.
    """
    if not vllm_baseline.installed():
        raise CourseError("vLLM is not installed here: README.md says where it can be had. The rest runs without it.")
    with listening_socket() as taken:
        port = taken.getsockname()[1]
    options = {
        "model": model,
        "served-model-name": "served",
        "host": LOOPBACK,
        "port": port,
        "dtype": dtype,
        "max-model-len": longest,
        "max-num-seqs": seats,
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    if speculative:
        command += ["--speculative-config", json.dumps(dict(speculative))]
    own = {"PYTHONPATH": str(files.ROOT)} | vllm_baseline.ENVIRONMENT | vllm_baseline.cache_root()
    del own["VLLM_ENABLE_V1_MULTIPROCESSING"]  # a server wants its engine in another process
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env=os.environ | own, stdout=log, stderr=log, text=True, start_new_session=True
        )
        try:
            _wait(process, f"http://{LOOPBACK}:{port}", log)
            yield f"http://{LOOPBACK}:{port}"
        finally:
            _end(process)


def _wait(process: subprocess.Popen, url: str, log) -> None:
    """Until it serves."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            log.seek(0)
            lines = [line.strip() for line in log if "Error" in line] or ["it left no message"]
            raise CourseError(f"vLLM's server stopped: {lines[-1]}")
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise CourseError(f"vLLM's server was not there after {PATIENCE} s.")


def _end(process: subprocess.Popen) -> None:
    """All of its processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE / 10)
