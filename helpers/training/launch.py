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
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from helpers import files, models
from helpers.errors import CourseError
from helpers.files import build_root


def artifact(module: str, model_id: str, arguments: dict[str, object], launcher: Sequence[str] = ()) -> Path:
    """The folder of what `module` makes with these arguments: another one when the script, the model or they change."""
    code = (files.ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    given = sorted(arguments.items())
    if "start_from" in arguments:
        given.append(("start_from_hash", models.hash_of(arguments["start_from"])))
    told = json.dumps([code, models.hash_of(model_id), given, list(launcher)], default=str)
    return build_root() / "artifacts" / f"{module.split('.')[-1]}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def launch(module: str, model_id: str, arguments: dict[str, object], launcher: Sequence[str] = (),
           inside: bool = False) -> Path:  # fmt: skip
    """Run `python -m module --model_id ... --output_dir FOLDER` unless FOLDER/report.json is there; returns FOLDER.

    What the script prints appears as it comes. `launcher` stands before the module: ("-m", "torch.distributed.run",
    "--nproc-per-node=2"), say. A run that was killed resumes, if the script can. `inside` runs it in this process: that
    saves the 15 seconds in which the libraries load, but its memory is not its own.
    """
    folder = artifact(module, model_id, arguments, launcher)
    if (folder / "report.json").exists():
        print(f"made before: {folder.name}")
        return folder
    options = [f"--{name}={value}" for name, value in {**arguments, "model_id": model_id, "output_dir": folder}.items()]
    if inside:
        with mock.patch.object(sys, "argv", [module, *options]):
            runpy.run_module(module, run_name="__main__")
        return folder
    command = [sys.executable, *launcher, "-m", module, *options]
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
        trouble = errors.read()
    if process.returncode:
        if process.returncode < 0:
            raise CourseError(f"{module} was killed by signal {-process.returncode}: too little memory, perhaps.")
        lines = [line for line in trouble.strip().splitlines() if line.strip("= ")] or ["it said nothing"]
        last = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        raise CourseError(f"{module} stopped with code {process.returncode}: {last}")
    return folder
