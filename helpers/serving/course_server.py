"""The course's server in a process of its own, as other servers are (notebooks 11b and 12)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from helpers.serving.own_process import ServerProcess, free_port
from helpers.serving.run import Settings, serve

MODULE = "helpers.serving.course_server"


def start(settings: Settings) -> ServerProcess:
    """Begin to serve."""
    port = free_port()
    options = {"settings": json.dumps(asdict(settings)), "port": port}
    return ServerProcess("The course's server", MODULE, options, {}, port)


@contextmanager
def course_serve(settings: Settings) -> Iterator[str]:
    """Serve for as long as the block lasts; gives the server's address."""
    process = start(settings)
    try:
        process.wait()
        yield process.url
    finally:
        process.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads)
    parser.add_argument("--port", type=int)
    asked = parser.parse_args()
    serve(Settings(**asked.settings), asked.port)


if __name__ == "__main__":
    main()
