"""What stands behind a local endpoint: the course's server (11) in a process of its own, which ends with this one."""

from __future__ import annotations

import threading

from helpers.errors import CourseError
from helpers.serving import course_server
from helpers.serving.run import Settings


class LocalServer:
    """A server; its `status` is "Creating", then "InService", or "Failed", when `reason` says why."""

    def __init__(self, settings: Settings):
        self.status, self.reason = "Creating", ""
        self._process = course_server.start(settings)
        self._waiting = threading.Thread(target=self._wait, daemon=True)
        self._waiting.start()

    @property
    def address(self) -> str:
        return self._process.url

    def stop(self) -> None:
        """What was accepted is answered; then it ends."""
        self._process.end()
        self._waiting.join()

    def _wait(self) -> None:
        try:
            self._process.wait()
            self.status = "InService"
        except CourseError as reason:
            self.reason, self.status = f"The container did not pass the ping health check: {reason}", "Failed"
