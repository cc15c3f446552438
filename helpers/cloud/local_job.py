"""A training job on this machine: the script that SageMaker would run, with the same folders and variables.

`sagemaker_submit_directory` is unpacked, `sagemaker_program` runs with the hyperparameters as options, SM_CHANNEL_*
name the data, and what it leaves in SM_MODEL_DIR becomes model.tar.gz.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from helpers.cloud.store import LocalStore, pack, unpack
from helpers.errors import CourseError
from helpers.files import build_root
from helpers.serving import watched_process

OWN = "sagemaker_"  # hyperparameters that are the toolkit's, and no options of the script
CHANNELS = "/opt/ml/input/data"  # where a container finds them


class LocalJob:
    """A job by its request to CreateTrainingJob; `status` is "InProgress", then "Completed", "Failed" or "Stopped"."""

    def __init__(self, request: Mapping, folder: Path, store: LocalStore):
        self.request, self.folder, self.store = request, folder, store
        self.status, self.reason, self.artifact = "InProgress", "", ""
        self.began, self.ended = time.time(), None
        self.log = folder / "log.txt"
        folder.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        self._lock, self._stopped, self._process = threading.Lock(), False, None
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self, why: str = "") -> None:
        """The script ends at once, and what it has made isn't kept. (SageMaker lets it end by itself for two minutes,
        and keeps it.)"""
        with self._lock:
            if self.status != "InProgress":
                return
            self._stopped, self.reason = True, why
            if self._process:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _run(self) -> None:
        limit = self.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86_400)
        timer = threading.Timer(limit, self.stop, ["it ran as long as MaxRuntimeInSeconds allows"])
        timer.daemon = True
        timer.start()
        try:
            status, reason = self._outcome()
        except Exception as error:  # whatever the request lacks; nobody must wait for ever
            status, reason = "Failed", f"ClientError: {error}"
        timer.cancel()
        with self._lock:
            self.ended, self.reason, self.status = time.time(), reason, status  # the status last: who sees it looks on

    def _outcome(self) -> tuple[str, str]:
        """Status, and the reason of a failure."""
        code = self._script()
        self._keep_figures()
        if self._stopped:
            return "Stopped", self.reason
        if code:
            return "Failed", f'AlgorithmError: ExecuteUserScriptError: ExitCode {code} ErrorMessage "{self._error()}"'
        out = self.request["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        self.artifact = f"{out}/{self.request['TrainingJobName']}/output/model.tar.gz"
        pack(self.folder / "model", self.store.path(self.artifact))
        return "Completed", ""

    def _keep_figures(self) -> None:
        """TensorBoard's, also of a job that failed. Scripts write them beside the checkpoints."""
        figures, config = self.folder / "tensorboard", self.request.get("TensorBoardOutputConfig")
        if config and figures.is_dir():
            self.store.upload(figures, config["S3OutputPath"])

    def _error(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()] or ["no message"]
        return next((line for line in reversed(lines) if "Error" in line), lines[-1])

    def _script(self) -> int:
        given = {name: json.loads(value) for name, value in self.request.get("HyperParameters", {}).items()}
        if "sagemaker_program" not in given or "sagemaker_submit_directory" not in given:
            raise CourseError("The job names no script: set sagemaker_program and sagemaker_submit_directory.")
        code = unpack(self.store.path(given["sagemaker_submit_directory"]), self.folder / "code")
        program = (code / given["sagemaker_program"]).resolve()
        if not program.is_file() or not program.is_relative_to(code.resolve()):
            raise CourseError(f"There is no {given['sagemaker_program']} in the job's code.")
        options = {name: self._here(value) for name, value in given.items() if not name.startswith(OWN)}
        if "CheckpointConfig" in self.request:
            options.setdefault("checkpoint_dir", str(self.folder / "checkpoints"))
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-u", watched_process.__file__, str(program), *words]
        environment = self._environment(options)
        with self.log.open("w") as log, self._lock:
            if self._stopped:
                return 1
            pipes = dict(stdin=subprocess.PIPE, stdout=log, stderr=log)
            self._process = subprocess.Popen(command, env=environment, cwd=code, start_new_session=True, **pipes)
        return self._process.wait()

    def _here(self, value: object) -> object:
        """A path of the container as a path here."""
        inside = isinstance(value, str) and value.startswith(f"{CHANNELS}/")
        return str(self._channels / value.removeprefix(f"{CHANNELS}/")) if inside else value

    @property
    def _channels(self) -> Path:
        return self.folder / "input" / "data"

    def _environment(self, options: Mapping[str, object]) -> dict[str, str]:
        places = {"SM_MODEL_DIR": self.folder / "model", "SM_OUTPUT_DATA_DIR": self.folder / "output" / "data"}
        for folder in places.values():
            folder.mkdir(parents=True, exist_ok=True)
        for channel in self.request.get("InputDataConfig", []):
            name, uri = channel["ChannelName"], channel["DataSource"]["S3DataSource"]["S3Uri"]
            places[f"SM_CHANNEL_{name.upper()}"] = self.store.download(uri, self._channels / name)
        found = {name: str(place) for name, place in places.items()} | {"COURSE_BUILD": str(build_root())}
        return os.environ | found | {"SM_HPS": json.dumps(options), "SM_NUM_GPUS": "0", "SM_CURRENT_HOST": "algo-1"}
