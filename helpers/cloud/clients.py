"""boto3's clients for this machine or for AWS: everything after `connect` is the same code (notebook 12).

`connect()` is local. AWS is an explicit choice, by `connect("aws")` or COURSE_BACKEND=aws, never inferred from
credentials: it costs money.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from helpers.cloud.records import Records
from helpers.cloud.service import local_service
from helpers.cloud.store import LocalStore
from helpers.errors import CourseError
from helpers.files import build_root

BACKENDS = ("local", "aws")
PATIENCE = Config(read_timeout=600, retries={"max_attempts": 1})


@dataclass
class Cloud:
    """`sagemaker` and `runtime` are boto3's clients; what is created through `made` is deleted by `clean_up`."""

    backend: str
    sagemaker: object
    runtime: object
    bucket: str
    role: str
    records: Records
    store: LocalStore | None = None
    _s3: object = field(default=None, repr=False)

    def upload(self, source: Path, key: str) -> str:
        """A file or a folder into the bucket; returns its address."""
        uri = f"s3://{self.bucket}/{key}"
        if self.store:
            return self.store.upload(source, uri)
        files = [source] if source.is_file() else [path for path in sorted(source.rglob("*")) if path.is_file()]
        if not files:
            raise CourseError(f"There is nothing at {source}: name a file or a folder.")
        for path in files:
            name = key if path == source else f"{key}/{path.relative_to(source).as_posix()}"
            self._s3.upload_file(str(path), self.bucket, name)
        return uri

    def create(self, kind: str, **request) -> dict:
        """`create_<kind>` of the control plane, recorded first: a kernel that dies in between leaves nothing behind
        that `python -m helpers cloud cleanup` doesn't know."""
        name = request[Records.NAMES[kind]]
        self.records.add(self.backend, kind, name)
        return getattr(self.sagemaker, f"create_{kind}")(**request)

    def clean_up(self) -> list[str]:
        """Delete everything that was created and is there still, endpoints first; returns what was deleted."""
        return self.records.delete_all(self.backend, self.sagemaker)


def backend_of(name: str | None) -> str:
    """The backend by this name, or by COURSE_BACKEND; local by default."""
    chosen = name or os.environ.get("COURSE_BACKEND") or "local"
    if chosen not in BACKENDS:
        raise CourseError(f"There is no backend {chosen!r}; there are {', '.join(BACKENDS)}.")
    return chosen


@contextmanager
def connect(backend: str | None = None, folder: Path | None = None) -> Iterator[Cloud]:
    """The clients, for as long as the block lasts; what was created is deleted at its end, whatever happens.

    Raises:
        CourseError: AWS was asked for, and there are no credentials or no role; nothing was sent then.
    """
    chosen = backend_of(backend)
    place = folder or build_root() / "cloud"
    records = Records(place / "created.json")
    if chosen == "aws":
        cloud = _aws(records)
        try:
            yield cloud
        finally:
            cloud.clean_up()
        return
    store = LocalStore(place / "s3")
    with local_service(place / "service", store) as url:
        unsigned = PATIENCE.merge(Config(signature_version=UNSIGNED))
        options = dict(endpoint_url=url, region_name="us-east-1", config=unsigned)
        sagemaker, runtime = (boto3.client(name, **options) for name in ("sagemaker", "sagemaker-runtime"))
        cloud = Cloud("local", sagemaker, runtime, "course", "arn:aws:iam::000000000000:role/local", records, store)
        try:
            yield cloud
        finally:
            cloud.clean_up()


def _aws(records: Records) -> Cloud:
    """Real clients. Credentials are found by boto3's own chain; they are never read, printed or kept here."""
    role, bucket = os.environ.get("COURSE_SAGEMAKER_ROLE"), os.environ.get("COURSE_S3_BUCKET")
    session = boto3.Session()
    if session.get_credentials() is None or not session.region_name:
        raise CourseError("COURSE_BACKEND=aws wants AWS credentials and a region: `aws configure`, or take local.")
    if not role or not bucket:
        raise CourseError("Set COURSE_SAGEMAKER_ROLE (a role's ARN) and COURSE_S3_BUCKET, which AWS asks for.")
    try:
        clients = (session.client(name, config=PATIENCE) for name in ("sagemaker", "sagemaker-runtime", "s3"))
        sagemaker, runtime, s3 = clients
    except (BotoCoreError, ClientError) as reason:
        raise CourseError(f"AWS can't be reached ({reason}).") from None
    return Cloud("aws", sagemaker, runtime, bucket, role, records, _s3=s3)


def left_over(action: str, backend: str, sure: bool = False) -> int:
    """List what was created there and may be there still, and delete it; 1 where something could not be deleted."""
    records = Records(build_root() / "cloud" / "created.json")
    found = [f"{kind} {name}" for of, kind, name in records.all() if of == backend]
    print("\n".join(found) or f"Nothing is recorded on {backend}.")
    if action == "list" or not found:
        return 0
    if not sure and input("Delete all of these? [y/N] ").strip().lower() != "y":
        return 1
    if backend == "local":
        records.forget(backend)
        return 0
    deleted = _aws(records).clean_up()
    print(f"{len(deleted)} of {len(found)} deleted.")
    return 0 if not [entry for entry in records.all() if entry[0] == backend] else 1
