"""What was created, written down before it is: so that it is deleted, even after a kernel that died (notebook 12)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from helpers.cloud.store import Store
from helpers.files import build_root, write_whole

NAMES = {  # in boto3's words; in the order in which they are deleted
    "inference_component": "InferenceComponentName",
    "endpoint": "EndpointName",
    "endpoint_config": "EndpointConfigName",
    "model": "ModelName",
    "training_job": "TrainingJobName",
}
FILES = "files"  # an address in S3, and all below it


class Entry(NamedTuple):
    """A resource, the backend that it is on, and the session that made it."""

    backend: str
    session: str
    kind: str
    name: str


class Records:
    """A file for each session, which nobody else writes: in build/cloud/created, or another folder."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder or build_root() / "cloud" / "created"

    def all(self, backend: str, session: str = "*") -> list[Entry]:
        """What may be there, in the order in which it is to be deleted; of one session, or of all."""
        found = [entry for path in sorted(self.folder.glob(f"{backend}-{session}.json")) for entry in _read(path)]
        order = [*NAMES, FILES]
        return sorted(found, key=lambda entry: order.index(entry.kind))

    def add(self, entry: Entry) -> None:
        path = self._path(entry)
        write_whole(path, json.dumps(list(dict.fromkeys([*_read(path), entry]))))

    def forget(self, entry: Entry) -> None:
        path = self._path(entry)
        if left := [other for other in _read(path) if other != entry]:
            write_whole(path, json.dumps(left))
        else:
            path.unlink(missing_ok=True)

    def _path(self, entry: Entry) -> Path:
        return self.folder / f"{entry.backend}-{entry.session}.json"


def _read(path: Path) -> list[Entry]:
    return [Entry(*each) for each in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def delete(
    records: Records, entries: Iterable[Entry], sagemaker, store: Store, patience: float, every: float = 1.0
) -> list[Entry]:
    """Delete these, and forget what is gone. What can't be deleted yet is tried again `every` so many seconds, for
    `patience` seconds in all. Returns what is left."""
    left, end = list(entries), time.monotonic() + patience
    while True:
        for entry in list(left):
            if _delete(sagemaker, store, entry):
                records.forget(entry)
                left.remove(entry)
        if not left or time.monotonic() > end:
            return left
        time.sleep(every)


def _delete(sagemaker, store: Store, entry: Entry) -> bool:
    """Whether it is gone, or was never made."""
    try:
        if entry.kind == FILES:
            store.remove(entry.name)
            return True
        named = {NAMES[entry.kind]: entry.name}
        if entry.kind == "training_job":  # a job stays in the list for ever; one that runs costs
            if sagemaker.describe_training_job(**named)["TrainingJobStatus"] == "InProgress":
                sagemaker.stop_training_job(**named)
        else:
            getattr(sagemaker, f"delete_{entry.kind}")(**named)
    except ClientError as reason:
        return "not find" in str(reason) or "not found" in str(reason)  # else it is in use, or just being created
    except BotoCoreError:  # nobody answers: the next one may
        return False
    return True
