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
import psutil
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from helpers import files
from helpers.cloud.budget import Budget
from helpers.cloud.records import FILES, NAMES, Entry, Records, delete
from helpers.cloud.service import local_service
from helpers.cloud.store import LocalStore, S3Store, Store
from helpers.errors import CourseError
from helpers.files import build_root

BACKENDS = ("local", "aws")
MANY = Config(read_timeout=600, max_pool_connections=64)
ONCE = MANY.merge(Config(retries={"total_max_attempts": 1}))  # a question that is asked twice is answered twice
UNSIGNED_ONCE = ONCE.merge(Config(signature_version=UNSIGNED))
ROLE = "arn:aws:iam::000000000000:role/local"
DELETION = {"local": (120, 0.5), "aws": (900, 15)}  # seconds until all has to be gone, and between two tries
NIGHT = 86_400  # seconds for which the process beside the kernel tries


@dataclass
class Cloud:
    """`sagemaker`, `runtime` and `logs` are boto3's clients, `store` holds files by their S3 addresses. What comes by
    `create` and `upload` is deleted by `clean_up`."""

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

    @property
    def region(self) -> str:
        return self.sagemaker.meta.region_name

    def address(self, key: str) -> str:
        """An address in S3 that goes with this session."""
        return f"s3://{self.bucket}/{self.session}/{key}"

    def upload(self, source: Path, key: str) -> str:
        """A file or a folder into the bucket; returns its address."""
        self.note(FILES, f"s3://{self.bucket}/{self.session}")
        return self.store.upload(source, self.address(key))

    def note(self, kind: str, name: str) -> Entry:
        """Record what is about to be created."""
        entry = Entry(self.backend, self.session, kind, name)
        self.records.add(entry)
        return entry

    def create(self, kind: str, **request) -> dict:
        """`create_<kind>` of the control plane. It is recorded first: a kernel that dies in between leaves nothing
        behind that `python -m helpers cloud cleanup` doesn't know."""
        cost = self._take(kind, request) if self.budget else 0.0
        entry = self.note(kind, request[NAMES[kind]])
        try:
            return getattr(self.sagemaker, f"create_{kind}")(**request)
        except ClientError as reason:
            if self.budget:
                self.budget.taken -= cost
            if "exist" in str(reason):  # it is somebody else's
                self.records.forget(entry)
            raise

    def clean_up(self) -> list[Entry]:
        """Delete everything that was created and is there still; returns what could not be deleted."""
        mine, (patience, every) = self.records.all(self.backend, self.session), DELETION[self.backend]
        return delete(self.records, mine, self.sagemaker, self.store, patience, every)

    def _take(self, kind: str, request: dict) -> float:
        """Dollars for what costs."""
        if kind == "training_job":
            asked, limit = request["ResourceConfig"], request["StoppingCondition"]["MaxRuntimeInSeconds"]
            return self.budget.take(asked["InstanceType"], asked["InstanceCount"], limit / 3600)
        if kind == "endpoint":
            config = self.sagemaker.describe_endpoint_config(EndpointConfigName=request["EndpointConfigName"])
            [variant] = config["ProductionVariants"]
            return self.budget.take(variant["InstanceType"], variant["InitialInstanceCount"])
        return 0.0


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
        try:
            yield cloud
        finally:
            if left := cloud.clean_up():
                names = ", ".join(f"{entry.kind} {entry.name}" for entry in left)
                print(f"Not deleted yet: {names}. Run `python -m helpers cloud cleanup`.")


@contextmanager
def _local(records: Records) -> Iterator[Cloud]:
    session, root = uuid.uuid4().hex[:8], build_root() / "cloud"
    _forget_the_dead(root, records)
    place = root / f"local-{os.getpid()}-{session}"
    store = LocalStore(place / "s3")
    try:
        with local_service(place, store) as url:
            options, own = dict(endpoint_url=url, region_name="us-east-1", config=UNSIGNED_ONCE), boto3.Session()
            clients = (own.client(name, **options) for name in ("sagemaker", "sagemaker-runtime", "logs"))
            yield Cloud("local", *clients, store, "course", ROLE, records, session, url)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _forget_the_dead(root: Path, records: Records) -> None:
    """What local services of processes that were killed have left: folders and records."""
    for folder in root.glob("local-*-*"):
        _, process, session = folder.name.split("-")
        if not psutil.pid_exists(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
            for entry in records.all("local", session):
                records.forget(entry)


@contextmanager
def _aws(records: Records, budget: Budget | None) -> Iterator[Cloud]:
    """Real clients. Credentials are found by boto3's own chain; they are never read, printed or kept here."""
    account, role, bucket = _account()
    if budget is None:
        raise CourseError("AWS costs money: say by a Budget what may be spent, and for how long.")
    budget.confirm()
    session = uuid.uuid4().hex[:8]
    sagemaker, logs, s3 = (account.client(service, config=MANY) for service in ("sagemaker", "logs", "s3"))
    runtime = account.client("sagemaker-runtime", config=ONCE)
    cloud = Cloud("aws", sagemaker, runtime, logs, S3Store(s3), bucket, role, records, session, budget=budget)
    stop = _stop_later(cloud, budget.hours)
    atexit.register(cloud.clean_up)  # a kernel that is shut down in the middle
    try:
        yield cloud
    finally:
        atexit.unregister(cloud.clean_up)
        if not records.all("aws", session):
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
    """A process that outlives the kernel. When the hours are over it deletes what is left of this session, and tries
    for a day; what it does is in a log beside the records."""
    words = ["cloud", "cleanup", "--yes", "--session", cloud.session, "--records", str(cloud.records.folder)]
    cloud.records.folder.mkdir(parents=True, exist_ok=True)
    with (cloud.records.folder / f"{cloud.session}.log").open("w") as log:
        places = dict(cwd=files.ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        command = [sys.executable, "-m", "helpers", *words, "--after", str(3600 * hours)]
        return subprocess.Popen(command, **places)


def left_over(
    action: str, *, session: str = "*", sure: bool = False, after: float = 0.0, folder: str | None = None
) -> int:
    """List what may be left on AWS, or delete it, now or later; 1 where something could not be deleted. (What was
    local ended with its notebook.)"""
    time.sleep(after)
    records = Records(Path(folder) if folder else None)
    found = records.all("aws", session)
    print("\n".join(f"{entry.kind} {entry.name}" for entry in found) or "Nothing is recorded on AWS.")
    if action == "list" or not found:
        return 0
    if not sure and input("Delete all of these? [y/N] ").strip().lower() != "y":
        return 1
    account, _, _ = _account()
    patience, every = DELETION["aws"]
    clients = account.client("sagemaker", config=MANY), S3Store(account.client("s3", config=MANY))
    left = delete(records, found, *clients, NIGHT if after else patience, every)
    print(f"{len(found) - len(left)} of {len(found)} deleted.")
    return 1 if left else 0
