"""How long it takes to read a model's weights from the disk (notebook 02)."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from helpers.errors import CourseError

PIECE = 2**24  # bytes read at a time


def read_seconds(folder: Path, repeats: int = 3) -> float:
    """Seconds to read a model's weights (safetensors or GGUF, a folder or a file), the fastest of `repeats`.

    What the system keeps of them in memory is dropped before, where it can be asked to (Linux); elsewhere it may come
    from there.
    """
    folder = Path(folder)
    files = [folder] if folder.is_file() else [*folder.glob("*.safetensors"), *folder.glob("*.gguf")]
    if not files:
        raise CourseError(f"There are no weights in {folder.name}: give a folder with safetensors or GGUF files.")
    return min(sum(map(_read_seconds, files)) for _ in range(repeats))


def _read_seconds(path: Path) -> float:
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.fsync(file.fileno())  # only what is on the disk can be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        for _ in iter(partial(file.read, PIECE), b""):
            pass
        return time.perf_counter() - began
