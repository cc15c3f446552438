"""What was created, written down before it is: so that it is deleted, even after a kernel that died (notebook 12)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from botocore.exceptions import ClientError

from helpers.files import write_whole


class Records:
    """A file with the backend, kind and name of each resource."""

    NAMES: ClassVar[dict[str, str]] = {  # in the order in which they are deleted
        "inference_component": "InferenceComponentName",
        "endpoint": "EndpointName",
        "endpoint_config": "EndpointConfigName",
        "model": "ModelName",
        "training_job": "TrainingJobName",
    }

    def __init__(self, path: Path):
        self.path = path

    def all(self) -> list[tuple[str, str, str]]:
        """(backend, kind, name) of everything that may be there."""
        if not self.path.exists():
            return []
        return [tuple(each) for each in json.loads(self.path.read_text(encoding="utf-8"))]

    def add(self, backend: str, kind: str, name: str) -> None:
        entry = (backend, kind, name)
        if entry not in (kept := self.all()):
            self._write([*kept, entry])

    def forget(self, backend: str) -> None:
        """Of a service that is gone with everything that it had."""
        self._write([entry for entry in self.all() if entry[0] != backend])

    def delete_all(self, backend: str, sagemaker) -> list[str]:
        """Delete what was created there; returns what was deleted. What AWS doesn't know any more is forgotten, and
        what can't be deleted yet stays recorded."""
        deleted, rest = [], []
        order = list(self.NAMES)
        for entry in sorted(self.all(), key=lambda each: order.index(each[1])):
            of, kind, name = entry
            if of != backend:
                rest.append(entry)
                continue
            try:
                self._delete(sagemaker, kind, name)
                deleted.append(f"{kind} {name}")
            except ClientError as reason:
                if "Could not find" not in str(reason) and "not found" not in str(reason):
                    rest.append(entry)
            self._write([*rest, *[other for other in self.all() if other not in (entry, *rest)]])
        return deleted

    def _delete(self, sagemaker, kind: str, name: str) -> None:
        given = {self.NAMES[kind]: name}
        if kind == "training_job":  # a job stays in the list for ever; one that runs costs
            if sagemaker.describe_training_job(**given)["TrainingJobStatus"] == "InProgress":
                sagemaker.stop_training_job(**given)
            return
        if kind == "endpoint" and sagemaker.describe_endpoint(**given)["EndpointStatus"] == "Creating":
            sagemaker.get_waiter("endpoint_in_service").wait(**given, WaiterConfig={"Delay": 2, "MaxAttempts": 300})
        getattr(sagemaker, f"delete_{kind}")(**given)

    def _write(self, entries: list) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps([list(each) for each in entries]))
