"""Give the threads back that a thread's parallel loops have left waiting (notebook 11).

OpenMP keeps a team of threads for each thread that has computed, for its next loop. When the threads of all teams
together are more than the cores, GNU's OpenMP stops waiting actively, and every barrier costs a wake-up: the course's
step took twice as long in a server whose main thread had loaded the model.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

import torch

SOFT = 1  # omp_pause_soft: the team comes back with the next loop


def release_team() -> None:
    """End the team of the thread that calls; where PyTorch has no GNU OpenMP nothing happens."""
    if (pause := _pause()) is not None:
        pause(SOFT)


@lru_cache(maxsize=1)
def _pause():
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return getattr(ctypes.CDLL(str(found[0])), "omp_pause_resource_all", None) if found else None
