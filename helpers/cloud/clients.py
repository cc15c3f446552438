"""boto3's clients for this machine or for AWS: everything after `connect` is the same code (notebook 12).

Local is the default. AWS is an explicit choice, by `connect("aws")` or COURSE_BACKEND=aws, never inferred from
credentials: it costs money.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore import UNSIGNED
from botocore.config import Config

from helpers import files
from helpers.cloud.budget import Budget
from helpers.cloud.records import NAMES, Entry, Records, delete
from helpers.cloud.service import local_service
from helpers.cloud.store import LocalStore, S3Store, Store
from helpers.errors import CourseError

BACKENDS = ("local", "aws")
CONFIG = Config(read_timeout=600, retries={"max_attempts": 1})
SERVICES = ("sagemaker", "sagemaker-runtime", "logs")
ROLE = "arn:aws:iam::000000000000:role/local"
DELETION = 900  # seconds: an endpoint of AWS is gone some minutes after it was asked to go


@dataclass
class Cloud:
    """`sagemaker`, `runtime` and `logs` are boto3's clients, `store` holds files by their S3 addresses. What is created
    by `create` is deleted by `clean_up`."""

    backend: str
    sagemaker: object
    runtime: object
    logs: object
    store: Store
    bucket: str
    role: str
    records: Records
    session: str
    url: str | None = None  # of the local service
    budget: Budget | None = None

    def upload(self, source: Path, key: str) -> str:
        """A file or a folder into the bucket; returns its address."""
        return self.store.upload(source, f"s3://{self.bucket}/{key}")

    def create(self, kind: str, **request) -> dict:
        """`create_<kind>` of the control plane. It is recorded first: a kernel that dies in between leaves nothing
        behind that `python -m helpers cloud cleanup` doesn't know."""
        if self.budget:
            self._take(kind, request)
        self.records.add(Entry(self.backend, self.session, kind, request[NAMES[kind]]))
        return getattr(self.sagemaker, f"create_{kind}")(**request)

    def clean_up(self) -> list[Entry]:
        """Delete everything that was created and is there still; returns what could not be deleted."""
        mine = self.records.all(self.backend, self.session)
        return delete(self.records, mine, self.sagemaker, DELETION if self.backend == "aws" else 0.0)

    def _take(self, kind: str, request: dict) -> None:
        if kind == "training_job":
            asked, limit = request["ResourceConfig"], request["StoppingCondition"]["MaxRuntimeInSeconds"]
            self.budget.take(asked["InstanceType"], asked["InstanceCount"], limit / 3600)
        if kind == "endpoint":
            config = self.sagemaker.describe_endpoint_config(EndpointConfigName=request["EndpointConfigName"])
            for variant in config["ProductionVariants"]:
                self.budget.take(variant["InstanceType"], variant["InitialInstanceCount"])


def backend_of(name: str | None) -> str:
    """The backend by this name, or by COURSE_BACKEND; local by default."""
    chosen = name or os.environ.get("COURSE_BACKEND") or "local"
    if chosen not in BACKENDS:
        raise CourseError(f"There is no backend {chosen!r}; there are {', '.join(BACKENDS)}.")
    return chosen


@contextmanager
def connect(
    backend: str | None = None, budget: Budget | None = None, records: Records | None = None
) -> Iterator[Cloud]:
    """The clients, for as long as the block lasts; what was created is deleted at its end, whatever happens.

    Raises:
        CourseError: AWS was asked for, and there are no credentials, no role or no budget, or nobody confirmed it;
            nothing was sent then.
    """
    chosen, records = backend_of(backend), records or Records()
    with _local(records) if chosen == "local" else _aws(records, budget) as cloud:
        atexit.register(cloud.clean_up)  # a kernel that is shut down in the middle
        try:
            yield cloud
        finally:
            atexit.unregister(cloud.clean_up)
            if left := cloud.clean_up():
                names = ", ".join(f"{entry.kind} {entry.name}" for entry in left)
                print(f"Not deleted yet: {names}. Run `python -m helpers cloud cleanup`.")


@contextmanager
def _local(records: Records) -> Iterator[Cloud]:
    session = uuid.uuid4().hex[:8]
    place, store = records.path.parent / session, LocalStore(records.path.parent / "s3")
    options = dict(region_name="us-east-1", config=CONFIG.merge(Config(signature_version=UNSIGNED)))
    try:
        with local_service(place, store) as url:
            clients = (boto3.client(name, endpoint_url=url, **options) for name in SERVICES)
            yield Cloud(
                "local", *clients, store, "course", "arn:aws:iam::000000000000:role/local", records, session, url
            )
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _aws(records: Records, budget: Budget | None) -> Iterator[Cloud]:
    """Real clients. Credentials are found by boto3's own chain; they are never read, printed or kept here."""
    session, role, bucket = _account()
    if budget is None:
        raise CourseError("AWS costs money: say by a Budget what may be spent, and for how long.")
    budget.confirm()
    clients, name = (session.client(service, config=CONFIG) for service in SERVICES), uuid.uuid4().hex[:8]
    store = S3Store(session.client("s3", config=CONFIG))
    cloud = Cloud("aws", *clients, store, bucket, role, records, name, budget=budget)
    stop = _stop_later(cloud, budget.hours)
    try:
        yield cloud
    finally:
        if not records.all("aws", name):
            stop.kill()
            stop.wait()


def _account() -> tuple[boto3.Session, str, str]:
    session = boto3.Session()
    role, bucket = os.environ.get("COURSE_SAGEMAKER_ROLE"), os.environ.get("COURSE_S3_BUCKET")
    if session.get_credentials() is None or not session.region_name:
        raise CourseError("COURSE_BACKEND=aws wants AWS credentials and a region: `aws configure`, or take local.")
    if not role or not bucket:
        raise CourseError("Set COURSE_SAGEMAKER_ROLE (a role's ARN) and COURSE_S3_BUCKET, which AWS asks for.")
    return session, role, bucket


def _stop_later(cloud: Cloud, hours: float) -> subprocess.Popen:
    """A process that outlives the kernel, and deletes what is left of this session when its hours are over."""
    words = ["cloud", "cleanup", "--yes", "--session", cloud.session, "--after", str(3600 * hours)]
    places = dict(cwd=files.ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return subprocess.Popen([sys.executable, "-m", "helpers", *words], start_new_session=True, **places)


def left_over(action: str, *, session: str | None = None, sure: bool = False, after: float = 0.0) -> int:
    """List what may be left on AWS, or delete it, now or later; 1 where something could not be deleted. (What was
    local ended with its notebook.)"""
    time.sleep(after)
    records = Records()
    found = records.all("aws", session)
    print("\n".join(f"{entry.kind} {entry.name}" for entry in found) or "Nothing is recorded on AWS.")
    if action == "list" or not found:
        return 0
    if not sure and input("Delete all of these? [y/N] ").strip().lower() != "y":
        return 1
    account, _, _ = _account()
    left = delete(records, found, account.client("sagemaker", config=CONFIG), DELETION)
    print(f"{len(found) - len(left)} of {len(found)} deleted.")
    return 1 if left else 0
