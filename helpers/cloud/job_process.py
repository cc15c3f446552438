"""A training job's own process: `python -m helpers.cloud.job_process PROGRAM ...`; it ends when its input is closed.

As SageMaker's training toolkit does it: the script runs where the code lies, with the hyperparameters as its options.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from pathlib import Path


def main() -> None:
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    program = Path(sys.argv[1]).resolve()
    sys.argv = [str(program), *sys.argv[2:]]
    sys.path.insert(0, str(program.parent))
    runpy.run_path(str(program), run_name="__main__")


def _end_with_the_starter() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
