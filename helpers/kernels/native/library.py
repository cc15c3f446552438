"""C++ of the course's own, compiled when it is first called for and kept in build/.

Threads are those of PyTorch's OpenMP: two pools in one process would wait for each other's cores.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from helpers.errors import CourseError
from helpers.files import build_root
from helpers.kernels.torch_compile import compiler
from helpers.measuring.machine import describe_machine

FOLDER = Path(__file__).parent
SOURCES = FOLDER / "llama_step.cpp", FOLDER / "drafted_tree.cpp"
HEADERS = VECTORS, CODES, PRODUCTS = tuple(FOLDER / f"{name}.h" for name in ("vectors", "codes", "products"))
DTYPES = "float32", "bfloat16"
POINTER, NUMBER = ctypes.c_void_p, ctypes.c_int32
ARGUMENTS = {
    "step": (POINTER, POINTER),
    "linear": (POINTER, NUMBER, POINTER, NUMBER, NUMBER, POINTER, NUMBER),
    "drafted_tree": (POINTER, POINTER),
}
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp")


@lru_cache(maxsize=1)
def why_not() -> str | None:
    """One sentence with its remedy where the library can't be made here, else None."""
    if platform.system() != "Linux" or _openmp() is None:
        return "it is written for Linux and a PyTorch that brings libgomp"
    if not compiler():
        return "there is no C++ compiler: `apt install g++` on Debian"
    try:
        library()
    except (CourseError, OSError) as error:
        return str(error)
    return None


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """The compiled library; a few seconds once for each machine and version of the source.

    Raises:
        CourseError: the compiler did not take it.
    """
    ctypes.CDLL(str(_openmp()), mode=ctypes.RTLD_GLOBAL)
    try:
        compiled = ctypes.CDLL(str(_compiled()))
    except OSError:  # a file that was damaged is made anew
        _compiled().unlink(missing_ok=True)
        compiled = ctypes.CDLL(str(_compiled()))
    for dtype in DTYPES:
        for name, arguments in ARGUMENTS.items():
            getattr(compiled, f"{name}_{dtype}").argtypes = arguments
    return compiled


def function(name: str, dtype: torch.dtype) -> Callable[..., int]:
    """`step`, `linear` or `drafted_tree` for float32 or bfloat16."""
    return getattr(library(), f"{name}_{str(dtype).removeprefix('torch.')}")


def _openmp() -> Path | None:
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return found[0] if found else None


def _compiled() -> Path:
    texts = (path.read_text(encoding="utf-8") for path in (*SOURCES, *HEADERS))
    made_of = "\n".join((*texts, *FLAGS, compiler() or "", describe_machine().cpu, _flags()))
    path = build_root() / "native" / f"course_{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        made, linked = [str(Path(folder, f"{source.stem}.o")) for source in SOURCES], Path(folder, "course.so")
        commands = [[compiler(), *FLAGS, "-c", str(source), "-o", o] for source, o in zip(SOURCES, made, strict=True)]
        with ThreadPoolExecutor() as pool:  # both at once: a learner waits
            list(pool.map(_run, commands))
        # Linked without -fopenmp: its functions are found in PyTorch's library, which is loaded already.
        _run([compiler(), "-shared", *made, "-o", str(linked)])
        os.replace(linked, path)
    return path


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it gave no reason"]
        raise CourseError(f"The C++ compiler did not take the course's step ({lines[-1]}): update g++ to 12.")


def has_look_ups() -> bool:
    """Whether the processor looks up many codes with one instruction; without, codes cost more than they save."""
    return {"avx512bw", "avx512vbmi"} <= set(_flags().split())


def _flags() -> str:
    """The processor's own features, as far as the system lists them: what was compiled for others may not run here."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
