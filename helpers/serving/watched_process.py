"""Run a script or a module that ends with whoever started it, even if that was killed (notebooks 11b and 12).

Run by its path, as `python watched_process.py SCRIPT ...` or `python watched_process.py -m MODULE ...`; it imports
nothing of ours, so that a training job's code is its archive's. The starter holds the other end of our standard input,
which is closed when it is gone.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    del sys.argv[0]
    if sys.argv[0] == "-m":
        module = sys.argv.pop(1)
        sys.path[0] = os.getcwd()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(sys.argv[0])
        runpy.run_path(sys.argv[0], run_name="__main__")


def _end_with_the_starter() -> None:
    while os.read(0, 1):  # sys.stdin would be locked when this process ends by itself
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # what it has started, too
    os._exit(1)


if __name__ == "__main__":
    main()
