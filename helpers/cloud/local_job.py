"""A training job on this machine: the script that SageMaker would run, with the same folders and variables.

`sagemaker_submit_directory` is unpacked, `sagemaker_program` runs with the hyperparameters as options, SM_CHANNEL_*
name the data, and what it leaves in SM_MODEL_DIR becomes model.tar.gz.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from helpers import files
from helpers.cloud.store import LocalStore, pack, unpack
from helpers.errors import CourseError

OWN = "sagemaker_"  # hyperparameters that are the toolkit's, and no options of the script


class LocalJob:
    """A job by its request to CreateTrainingJob; `status` is "InProgress", then "Completed", "Failed" or "Stopped"."""

    def __init__(self, request: Mapping, folder: Path, store: LocalStore):
        self.request, self.folder, self.store = request, folder, store
        self.status, self.reason, self.artifact = "InProgress", "", ""
        self.began, self.ended = time.time(), None
        self.log = folder / "log.txt"
        folder.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        self.process: subprocess.Popen | None = None
        self._stopping = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """The script ends at once; what it has made isn't kept."""
        self._stopping.set()
        if self.process:
            self.process.kill()

    def _run(self) -> None:
        try:
            code = self._script()
            if self._stopping.is_set():
                self.status = "Stopped"
            elif code:
                lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
                last = next((line for line in reversed(lines) if "Error" in line), (lines or ["no message"])[-1])
                self.status = "Failed"
                self.reason = f'AlgorithmError: ExecuteUserScriptError: ExitCode {code} ErrorMessage "{last}"'
            else:
                self._keep()
                self.status = "Completed"
        except (CourseError, OSError, KeyError, ValueError) as reason:
            self.status, self.reason = "Failed", f"ClientError: {reason}"
        finally:
            self.ended = time.time()

    def _script(self) -> int:
        given = {name: json.loads(value) for name, value in self.request.get("HyperParameters", {}).items()}
        if "sagemaker_program" not in given or "sagemaker_submit_directory" not in given:
            raise CourseError("The job names no script: set sagemaker_program and sagemaker_submit_directory.")
        code = unpack(self.store.path(given["sagemaker_submit_directory"]), self.folder / "code")
        program = code / given["sagemaker_program"]
        if not program.is_file():
            raise CourseError(f"There is no {given['sagemaker_program']} in the job's code.")
        options = {name: value for name, value in given.items() if not name.startswith(OWN)}
        if "CheckpointConfig" in self.request:
            options.setdefault("checkpoint_dir", str(self.folder / "checkpoints"))
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-u", "-m", "helpers.cloud.job_process", str(program), *words]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment(options), cwd=files.ROOT
            )
        return self.process.wait()

    def _environment(self, options: Mapping[str, object]) -> dict[str, str]:
        model, output = self.folder / "model", self.folder / "output" / "data"
        for folder in (model, output):
            folder.mkdir(parents=True, exist_ok=True)
        found = {"SM_MODEL_DIR": str(model), "SM_OUTPUT_DATA_DIR": str(output), "SM_NUM_GPUS": "0"}
        found |= {"SM_HPS": json.dumps(options), "SM_CURRENT_HOST": "algo-1", "SM_HOSTS": '["algo-1"]'}
        for channel in self.request.get("InputDataConfig", []):
            name, uri = channel["ChannelName"], channel["DataSource"]["S3DataSource"]["S3Uri"]
            place = self.store.download(uri, self.folder / "input" / "data" / name)
            found[f"SM_CHANNEL_{name.upper()}"] = str(place)
        return os.environ | found | {"PYTHONPATH": str(files.ROOT)}

    def _keep(self) -> None:
        out = self.request["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        self.artifact = f"{out}/{self.request['TrainingJobName']}/output/model.tar.gz"
        pack(self.folder / "model", self.store.path(self.artifact))
