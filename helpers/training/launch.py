"""Start a training script as a process of its own, once: what it made is kept under build/artifacts and found again.

A process of its own has its memory to itself, so that its peak is the method's; and what it does is what a shell,
torchrun or a SageMaker job would do with the same script.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from helpers import files, models
from helpers.errors import CourseError
from helpers.files import build_root
from helpers.source_code import hash_of_files, reached_files
from helpers.text_to_sql.domains import DATA

# What only shows the course: no script's work depends on it, though the package itself imports some of it.
SHOWN = ("__init__.py", "notebook", "course")


def artifact(
    module: str, model_id: str, arguments: dict[str, object], launcher: Sequence[str] = (), root: Path = files.ROOT
) -> Path:
    """The folder of what `module` makes with these arguments.

    It is another one when the script, a module that it imports (directly or not), the model, the data or the arguments
    change. `root` is the checkout.
    """
    start = root / f"{module.replace('.', '/')}.py"
    code = reached_files([start], root, follows=lambda path: path.relative_to(root / "helpers").parts[0] not in SHOWN)
    made_of = {
        "code": hash_of_files(code, root),
        "model": models.hash_of(model_id),
        "data": _hash_of_data(arguments),
        "arguments": sorted(arguments.items()),
        "launcher": list(launcher),
    }
    if adapter := arguments.get("begin_with"):
        made_of["begin_with"] = models.hash_of(str(adapter))
    digest = hashlib.sha256(json.dumps(made_of, default=str).encode()).hexdigest()
    return build_root() / "artifacts" / f"{module.split('.')[-1]}-{digest[:12]}"


def _hash_of_data(arguments: dict[str, object]) -> str:
    """A hash of the course's data and of the files at the paths of data sets, those in folders inside them, too."""
    digest = hashlib.sha256()
    paths = [Path(str(value)) for name, value in arguments.items() if name.endswith("_dataset_path")]
    for path in (DATA, *paths):
        inside = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        for file in inside:
            digest.update(f"{file.relative_to(path).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def launch(
    module: str, model_id: str, arguments: dict[str, object], launcher: Sequence[str] = (), inside: bool = False
) -> Path:
    """Run `python -m module --model_id ... --output_dir FOLDER` unless FOLDER/report.json is there; returns FOLDER.

    What the script prints appears as it comes. `launcher` stands before the module: ("-m", "torch.distributed.run",
    "--nproc-per-node=2"), say. A run that was killed resumes, if the script can. `inside` runs it in this process: that
    saves the 15 seconds in which the libraries load, but its memory is not its own. CourseError where it fails.
    """
    folder = artifact(module, model_id, arguments, launcher)
    if (folder / "report.json").exists():
        print(f"made before: {folder.name}")
        return folder
    options = [f"--{name}={value}" for name, value in {**arguments, "model_id": model_id, "output_dir": folder}.items()]
    if inside:
        _run_inside(module, options)
    else:
        _run_process(module, [sys.executable, *launcher, "-m", module, *options])
    return folder


def _run_inside(module: str, options: list[str]) -> None:
    try:
        with mock.patch.object(sys, "argv", [module, *options]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)  # a notebook imports it, too
            runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        raise CourseError(f"{module} stopped: {end}") from None


def _run_process(module: str, command: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(files.ROOT), "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
        finally:  # an interrupted cell leaves no training behind; it goes on from its last checkpoint
            if process.poll() is None:
                process.terminate()
            process.wait()
        errors.seek(0)
        lines = [line for line in errors.read().strip().splitlines() if line.strip("= ")] or ["it said nothing"]
    if process.returncode < 0:
        raise CourseError(f"{module} was killed by signal {-process.returncode}: too little memory, perhaps.")
    if process.returncode:
        last = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        raise CourseError(f"{module} stopped with code {process.returncode}: {last}")
