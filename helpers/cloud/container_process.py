"""What a container runs: the course's server, until its input is closed: `python -m helpers.cloud.container_process`.

Its starter may be killed: the pipe is closed then, too, and nothing is left.
"""

from __future__ import annotations

import os
import sys
import threading

from helpers.__main__ import main


def end_with_the_starter() -> None:
    """In a thread: waits for the end of the input."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_starter, daemon=True).start()
    sys.argv = ["helpers", "serve", "--port", "0", *sys.argv[1:]]
    sys.exit(main())
