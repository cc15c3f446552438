"""SageMaker's control plane on this machine: models, endpoints, jobs, tags (notebook 12).

It records what is asked for, starts what would be started, and answers as SageMaker does. Instance types are recorded
and not used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helpers.cloud.containers import options_of, settings_of, unused
from helpers.cloud.faults import ServiceFault, arn, exists_already, in_use, not_found
from helpers.cloud.kinds import COMPONENT, CONFIG, ENDPOINT, JOB, KINDS, MODEL, Kind, parse
from helpers.cloud.local_endpoint import LocalServer
from helpers.cloud.local_job import LocalJob
from helpers.cloud.store import LocalStore, unpack

FILTERS = {"NameContains", "MaxResults", "SortBy", "SortOrder"}  # of a list; all fits on one page


@dataclass
class Resource:
    """What was asked for, when, and the processes that it started: servers by variant or component, or a job."""

    request: Mapping
    arn: str
    created: float = field(default_factory=time.time)
    servers: dict[str, LocalServer] = field(default_factory=dict)
    job: LocalJob | None = None


class ControlPlane:
    """`call` an operation by its name. Resources are in memory; `close` ends every process that was started."""

    def __init__(self, folder: Path, store: LocalStore):
        self.folder, self.store, self._lock = folder, store, threading.RLock()
        self.resources: dict[Kind, dict[str, Resource]] = {kind: {} for kind in KINDS.values()}
        self.tags: dict[str, dict[str, str]] = {}

    def call(self, operation: str, request: Mapping) -> dict:
        """The operation's answer; ServiceFault as SageMaker has it."""
        with self._lock:
            if operation in ("AddTags", "ListTags", "DeleteTags"):
                return self._tags(operation, request)
            verb, kind = parse(operation)
            if verb != "List" and not request.get(kind.name):
                raise ServiceFault("ValidationException", f"The request names no {kind.name}.")
            return getattr(self, f"_{verb.lower()}")(kind, request)

    def close(self) -> None:
        """Nothing runs on."""
        with self._lock:
            for resource in [one for kept in self.resources.values() for one in kept.values()]:
                _end(resource)

    def find(self, kind: Kind, name: str) -> Resource:
        """A resource by its name."""
        if name not in self.resources[kind]:
            raise not_found(kind, name)
        return self.resources[kind][name]

    def _create(self, kind: Kind, request: Mapping) -> dict:
        name = request[kind.name]
        if name in self.resources[kind]:
            raise exists_already(kind, name)
        resource = Resource(request, arn(kind, name))
        if kind is CONFIG:
            _one_variant(request)
        elif kind is ENDPOINT:
            self._start_endpoint(name, resource)
        elif kind is COMPONENT:
            self.find(ENDPOINT, request["EndpointName"])
            resource.servers[name] = self._start(name, request["Specification"]["ModelName"])
        elif kind is JOB:
            print(f"{name} on {request['ResourceConfig']['InstanceType']}: recorded; the job runs on this machine.")
            resource.job = LocalJob(request, self.folder / "jobs" / name, self.store)
        self.resources[kind][name] = resource
        self._tags("AddTags", {"ResourceArn": resource.arn, "Tags": request.get("Tags", [])})
        return {kind.arn: resource.arn}

    def _describe(self, kind: Kind, request: Mapping) -> dict:
        name = request[kind.name]
        resource = self.find(kind, name)
        found = {key: value for key, value in resource.request.items() if key != "Tags"}
        found |= {kind.arn: resource.arn, "CreationTime": resource.created, "LastModifiedTime": resource.created}
        if kind is ENDPOINT:
            config = self.resources[CONFIG].get(resource.request["EndpointConfigName"])
            variants = config.request["ProductionVariants"] if config else []
            shown = [{"VariantName": one["VariantName"], "CurrentInstanceCount": 1} for one in variants]
            return found | {"ProductionVariants": shown} | _state("EndpointStatus", resource)
        if kind is COMPONENT:
            address = self.find(ENDPOINT, found["EndpointName"]).arn
            return found | {"EndpointArn": address} | _state("InferenceComponentStatus", resource)
        return found | (_job_state(resource.job) if kind is JOB else {})

    def _delete(self, kind: Kind, request: Mapping) -> dict:
        name = request[kind.name]
        resource = self.find(kind, name)
        if any(server.status == "Creating" for server in resource.servers.values()):
            raise in_use(f"Cannot update in-progress {kind.words}", kind, name)
        components = [one.request["EndpointName"] for one in self.resources[COMPONENT].values()]
        if kind is ENDPOINT and name in components:
            raise in_use("Inference components must be deleted before the endpoint", kind, name)
        del self.resources[kind][name]
        _end(resource)
        return {}

    def _list(self, kind: Kind, request: Mapping) -> dict:
        if unknown := set(request) - FILTERS:
            raise ServiceFault("ValidationException", f"A list is not filtered by {', '.join(unknown)} locally.")
        names = [name for name in self.resources[kind] if request.get("NameContains", "") in name]
        return {kind.listed: [self._describe(kind, {kind.name: name}) for name in names]}

    def _stop(self, kind: Kind, request: Mapping) -> dict:
        self.find(kind, request[kind.name]).job.stop()
        return {}

    def _tags(self, operation: str, request: Mapping) -> dict:
        kept = self.tags.setdefault(request["ResourceArn"], {})
        if operation == "DeleteTags":
            for key in request["TagKeys"]:
                kept.pop(key, None)
            return {}
        kept.update((tag["Key"], tag["Value"]) for tag in request.get("Tags", []))
        return {"Tags": [{"Key": key, "Value": value} for key, value in kept.items()]}

    def _start_endpoint(self, name: str, resource: Resource) -> None:
        variant = _one_variant(self.find(CONFIG, resource.request["EndpointConfigName"]).request)
        print(f"{name} on {variant.get('InstanceType')}: recorded; the endpoint runs on this machine.")
        if "ModelName" in variant:  # else its models come as inference components
            resource.servers[variant["VariantName"]] = self._start(name, variant["ModelName"])

    def _start(self, name: str, model: str) -> LocalServer:
        described = self.find(MODEL, model).request
        container = described.get("PrimaryContainer") or described["Containers"][0]
        place, uri = self.folder / "models" / name, container.get("ModelDataUrl")
        folder = unpack(self.store.path(uri), place) if uri else None
        options = options_of(container.get("Environment", {}), folder)
        if idle := unused(options):
            print(f"{name}: recorded, without effect here: {', '.join(idle)}")
        return LocalServer(settings_of(options, folder, self.store))


def _one_variant(config: Mapping) -> Mapping:
    if len(config["ProductionVariants"]) != 1:
        raise ServiceFault("ValidationException", "An endpoint has one variant locally.")
    return config["ProductionVariants"][0]


def _state(key: str, resource: Resource) -> dict:
    """An endpoint whose models come as components has no server of its own: it is in service at once."""
    [server] = list(resource.servers.values()) or [None]
    reason = {"FailureReason": server.reason} if server and server.reason else {}
    return {key: server.status if server else "InService"} | reason


def _job_state(job: LocalJob) -> dict:
    status = job.status
    found = {"TrainingJobStatus": status, "SecondaryStatus": "Training" if status == "InProgress" else status}
    found |= {"ModelArtifacts": {"S3ModelArtifacts": job.artifact}} if job.artifact else {}
    found |= {"FailureReason": job.reason} if job.reason else {}
    return found | ({"TrainingEndTime": job.ended} if job.ended else {})


def _end(resource: Resource) -> None:
    for server in resource.servers.values():
        server.stop()
    if resource.job:
        resource.job.stop()
