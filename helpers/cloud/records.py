"""What was created, written down before it is: so that it is deleted, even after a kernel that died (notebook 12)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from botocore.exceptions import ClientError, WaiterError

from helpers.files import build_root, write_whole

NAMES = {  # in boto3's words; in the order in which they are deleted
    "inference_component": "InferenceComponentName",
    "endpoint": "EndpointName",
    "endpoint_config": "EndpointConfigName",
    "model": "ModelName",
    "training_job": "TrainingJobName",
}


class Entry(NamedTuple):
    """A resource, the backend that it is on, and the session that made it."""

    backend: str
    session: str
    kind: str
    name: str


class Records:
    """A file of entries: build/cloud/created.json, or another one."""

    def __init__(self, path: Path | None = None):
        self.path = path or build_root() / "cloud" / "created.json"

    def all(self, backend: str, session: str | None = None) -> list[Entry]:
        """What may be there, in the order in which it is to be deleted; of one session, or of all."""
        found = [entry for entry in self._read() if entry.backend == backend and session in (None, entry.session)]
        return sorted(found, key=lambda entry: list(NAMES).index(entry.kind))

    def add(self, entry: Entry) -> None:
        self._write({*self._read(), entry})

    def forget(self, entries: Iterable[Entry]) -> None:
        self._write(set(self._read()) - set(entries))

    def _read(self) -> list[Entry]:
        return [Entry(*each) for each in json.loads(self.path.read_text())] if self.path.exists() else []

    def _write(self, entries: Iterable[Entry]) -> None:
        write_whole(self.path, json.dumps(sorted(entries)))


def delete(records: Records, entries: Iterable[Entry], sagemaker, patience: float = 0.0) -> list[Entry]:
    """Delete these, and forget what is gone. What can't be deleted yet is tried again for so many seconds. Returns
    what is left."""
    left, end = list(entries), time.monotonic() + patience
    while True:
        for entry in left:
            try:
                _delete(sagemaker, entry.kind, {NAMES[entry.kind]: entry.name})
            except ClientError as reason:
                if "not find" not in str(reason) and "not found" not in str(reason):
                    continue  # in use; else it was never made, or is gone
            records.forget([entry])
        kept = set(records.all(left[0].backend)) if left else set()
        left = [entry for entry in left if entry in kept]
        if not left or time.monotonic() > end:
            return left
        time.sleep(15)


def _delete(sagemaker, kind: str, named: dict[str, str]) -> None:
    if kind == "training_job":  # a job stays in the list for ever; one that runs costs
        if sagemaker.describe_training_job(**named)["TrainingJobStatus"] == "InProgress":
            sagemaker.stop_training_job(**named)
        return
    if kind == "endpoint" and sagemaker.describe_endpoint(**named)["EndpointStatus"] == "Creating":
        with suppress(WaiterError):  # it failed: that can be deleted
            sagemaker.get_waiter("endpoint_in_service").wait(**named, WaiterConfig={"Delay": 2, "MaxAttempts": 600})
    getattr(sagemaker, f"delete_{kind}")(**named)
