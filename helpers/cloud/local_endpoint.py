"""What stands behind a local endpoint: the course's server (11) in a process of its own, which ends with this one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from helpers import files

PATIENCE = 300  # seconds until it answers /ping


class LocalServer:
    """A server that is starting, "InService", "Failed" (then `reason` says why), or stopped."""

    def __init__(self, options: Sequence[str], log: Path):
        self.log, self.address, self.status, self.reason = log, "", "Creating", ""
        self._lock, self._stopped = threading.Lock(), False
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "helpers.cloud.container_process", *options]
        with log.open("w") as written:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=written, text=True, cwd=files.ROOT
            )
        threading.Thread(target=self._wait, daemon=True).start()

    def stop(self) -> None:
        """What was accepted is answered; then it ends."""
        with self._lock:
            self._stopped = True
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait(self) -> None:
        end, line = time.monotonic() + PATIENCE, self.process.stdout.readline()
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if line and httpx.get(f"{line.split()[0]}/ping", timeout=5).status_code == 200:
                    return self._settle("InService", line.split()[0])
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        self._settle("Failed", "")

    def _settle(self, status: str, address: str) -> None:
        with self._lock:
            if not self._stopped:
                self.address, self.status = address, status
                if status == "Failed":
                    lines = self.log.read_text(errors="replace").strip().splitlines() or ["it left no message"]
                    self.reason = f"The container did not pass the ping health check: {lines[-1]}"
