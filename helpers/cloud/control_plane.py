"""SageMaker's control plane on this machine: models, endpoints, jobs, tags, by the operations' own names (notebook 12).

It records what is asked for, starts what would be started, and answers as SageMaker does. Instance types are recorded
and not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from helpers.cloud.containers import options_of, serve_options
from helpers.cloud.faults import ServiceFault, arn, exists_already, not_found
from helpers.cloud.local_endpoint import LocalServer
from helpers.cloud.local_job import LocalJob
from helpers.cloud.store import LocalStore, unpack

WORDS = {"model": "model", "endpoint-config": "endpoint configuration", "endpoint": "endpoint"}


class ControlPlane:
    """`call` an operation by its name. Resources are in memory; `close` ends every process that was started."""

    def __init__(self, folder: Path, store: LocalStore):
        self.folder, self.store = folder, store
        self.models: dict[str, dict] = {}
        self.configs: dict[str, dict] = {}
        self.endpoints: dict[str, dict] = {}
        self.components: dict[str, dict] = {}
        self.servers: dict[tuple[str, str], LocalServer] = {}  # by endpoint and variant or component
        self.jobs: dict[str, LocalJob] = {}
        self.tags: dict[str, list[dict]] = {}
        self.operations: dict[str, Callable[[Mapping], dict]] = {
            name.title().replace("_", ""): method
            for name in dir(self)
            if name.split("_")[0] in ("create", "describe", "delete", "list", "add", "stop")
            and callable(method := getattr(self, name))
        }

    def call(self, operation: str, request: Mapping) -> dict:
        """The operation's answer; ServiceFault as SageMaker has it."""
        if operation not in self.operations:
            known = ", ".join(sorted(self.operations))
            raise ServiceFault("UnknownOperationException", f"{operation} is not done locally; there are {known}.")
        return self.operations[operation](request)

    def close(self) -> None:
        """Nothing runs on."""
        for server in self.servers.values():
            server.stop()
        for job in self.jobs.values():
            job.stop()

    # ---- models

    def create_model(self, request: Mapping) -> dict:
        name = request["ModelName"]
        if name in self.models:
            raise exists_already("model", "model", name)
        self.models[name] = dict(request) | {"ModelArn": arn("model", name), "CreationTime": time.time()}
        self._tag(self.models[name]["ModelArn"], request)
        return {"ModelArn": self.models[name]["ModelArn"]}

    def describe_model(self, request: Mapping) -> dict:
        return _without_tags(self._of(self.models, "model", request["ModelName"]))

    def delete_model(self, request: Mapping) -> dict:
        self._of(self.models, "model", request["ModelName"])
        del self.models[request["ModelName"]]
        return {}

    def list_models(self, request: Mapping) -> dict:
        return {"Models": [_summary(one, "ModelName", "ModelArn", "CreationTime") for one in self.models.values()]}

    # ---- endpoint configurations

    def create_endpoint_config(self, request: Mapping) -> dict:
        name = request["EndpointConfigName"]
        if name in self.configs:
            raise exists_already("endpoint configuration", "endpoint-config", name)
        for variant in request["ProductionVariants"]:
            if "ModelName" in variant:
                self._of(self.models, "model", variant["ModelName"])
        made = {"EndpointConfigArn": arn("endpoint-config", name), "CreationTime": time.time()}
        self.configs[name] = dict(request) | made
        self._tag(made["EndpointConfigArn"], request)
        return {"EndpointConfigArn": made["EndpointConfigArn"]}

    def describe_endpoint_config(self, request: Mapping) -> dict:
        return _without_tags(self._of(self.configs, "endpoint-config", request["EndpointConfigName"]))

    def delete_endpoint_config(self, request: Mapping) -> dict:
        self._of(self.configs, "endpoint-config", request["EndpointConfigName"])
        del self.configs[request["EndpointConfigName"]]
        return {}

    def list_endpoint_configs(self, request: Mapping) -> dict:
        keys = ("EndpointConfigName", "EndpointConfigArn", "CreationTime")
        return {"EndpointConfigs": [_summary(one, *keys) for one in self.configs.values()]}

    # ---- endpoints

    def create_endpoint(self, request: Mapping) -> dict:
        name = request["EndpointName"]
        if name in self.endpoints:
            raise exists_already("endpoint", "endpoint", name)
        config = self._of(self.configs, "endpoint-config", request["EndpointConfigName"])
        for variant in config["ProductionVariants"]:
            types = variant.get("InstanceType", "no type")
            print(f"{name}: {variant['VariantName']} on {types}: recorded, it runs on this machine.")
            if "ModelName" in variant:
                self._start(name, variant["VariantName"], variant["ModelName"])
        made = {"EndpointArn": arn("endpoint", name), "CreationTime": time.time(), "LastModifiedTime": time.time()}
        self.endpoints[name] = dict(request) | made
        self._tag(made["EndpointArn"], request)
        return {"EndpointArn": made["EndpointArn"]}

    def describe_endpoint(self, request: Mapping) -> dict:
        endpoint = self._of(self.endpoints, "endpoint", request["EndpointName"])
        config = self.configs.get(endpoint["EndpointConfigName"], {})
        servers = [server for (of, _), server in self.servers.items() if of == request["EndpointName"]]
        states = {server.status for server in servers}
        status = next((state for state in ("Failed", "Creating") if state in states), "InService")
        reason = next((server.reason for server in servers if server.reason), None)
        variants = [
            {"VariantName": one["VariantName"], "CurrentInstanceCount": one.get("InitialInstanceCount", 1)}
            for one in config.get("ProductionVariants", [])
        ]
        found = _without_tags(endpoint) | {"EndpointStatus": status, "ProductionVariants": variants}
        return found | ({"FailureReason": reason} if reason else {})

    def delete_endpoint(self, request: Mapping) -> dict:
        name = request["EndpointName"]
        if self.describe_endpoint(request)["EndpointStatus"] == "Creating":
            raise ServiceFault("ValidationException", f'Cannot update in-progress endpoint "{arn("endpoint", name)}".')
        if any(one["EndpointName"] == name for one in self.components.values()):
            sentence = f'Cannot delete endpoint "{arn("endpoint", name)}" with inference components.'
            raise ServiceFault("ValidationException", sentence)
        del self.endpoints[name]
        for key in [key for key in self.servers if key[0] == name]:
            self.servers.pop(key).stop()
        return {}

    def list_endpoints(self, request: Mapping) -> dict:
        keys = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
        described = [self.describe_endpoint({"EndpointName": name}) for name in self.endpoints]
        return {"Endpoints": [_summary(one, *keys) for one in described]}

    # ---- inference components: several models on one endpoint

    def create_inference_component(self, request: Mapping) -> dict:
        name, endpoint = request["InferenceComponentName"], request["EndpointName"]
        if name in self.components:
            raise exists_already("inference component", "inference-component", name)
        self._of(self.endpoints, "endpoint", endpoint)
        self._start(endpoint, name, request["Specification"]["ModelName"])
        made = {"InferenceComponentArn": arn("inference-component", name), "CreationTime": time.time()}
        self.components[name] = dict(request) | made
        self._tag(made["InferenceComponentArn"], request)
        return {"InferenceComponentArn": made["InferenceComponentArn"]}

    def describe_inference_component(self, request: Mapping) -> dict:
        name = request["InferenceComponentName"]
        if name not in self.components:
            raise not_found("inference component", "inference-component", name)
        found = _without_tags(self.components[name])
        server, endpoint = self.servers[found["EndpointName"], name], found["EndpointName"]
        more = {"InferenceComponentStatus": server.status, "EndpointArn": arn("endpoint", endpoint)}
        return found | more | ({"FailureReason": server.reason} if server.reason else {})

    def delete_inference_component(self, request: Mapping) -> dict:
        found = self.describe_inference_component(request)
        name = found["InferenceComponentName"]
        self.servers.pop((found["EndpointName"], name)).stop()
        del self.components[name]
        return {}

    # ---- training jobs

    def create_training_job(self, request: Mapping) -> dict:
        name = request["TrainingJobName"]
        if name in self.jobs:
            unique = "Job name must be unique within an AWS account and region, and a job with this name already exists"
            raise ServiceFault("ResourceInUse", f"{unique} ({arn('training-job', name)}).")
        print(f"{name} on {request['ResourceConfig']['InstanceType']}: recorded, it runs on this machine.")
        self.jobs[name] = LocalJob(request, self.folder / "jobs" / name, self.store)
        self._tag(arn("training-job", name), request)
        return {"TrainingJobArn": arn("training-job", name)}

    def describe_training_job(self, request: Mapping) -> dict:
        name = request["TrainingJobName"]
        job = self._job(name)
        found = _without_tags(job.request) | {
            "TrainingJobArn": arn("training-job", name),
            "TrainingJobStatus": job.status,
            "SecondaryStatus": "Training" if job.status == "InProgress" else job.status,
            "ModelArtifacts": {"S3ModelArtifacts": job.artifact},
            "CreationTime": job.began,
        }
        if job.ended:
            found["TrainingEndTime"] = job.ended
        return found | ({"FailureReason": job.reason} if job.reason else {})

    def stop_training_job(self, request: Mapping) -> dict:
        self._job(request["TrainingJobName"]).stop()
        return {}

    def list_training_jobs(self, request: Mapping) -> dict:
        keys = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingJobStatus")
        described = [self.describe_training_job({"TrainingJobName": name}) for name in self.jobs]
        return {"TrainingJobSummaries": [_summary(one, *keys) for one in described]}

    # ---- tags

    def add_tags(self, request: Mapping) -> dict:
        self._tag(request["ResourceArn"], request)
        return self.list_tags(request)

    def list_tags(self, request: Mapping) -> dict:
        return {"Tags": self.tags.get(request["ResourceArn"], [])}

    def delete_tags(self, request: Mapping) -> dict:
        kept = [tag for tag in self.tags.get(request["ResourceArn"], []) if tag["Key"] not in request["TagKeys"]]
        self.tags[request["ResourceArn"]] = kept
        return {}

    # ---- what they share

    def _of(self, kept: Mapping[str, dict], kind: str, name: str) -> dict:
        if name not in kept:
            raise not_found(WORDS[kind], kind, name)
        return kept[name]

    def _job(self, name: str) -> LocalJob:
        if name not in self.jobs:
            raise ServiceFault("ValidationException", "Requested resource not found.")
        return self.jobs[name]

    def _tag(self, resource: str, request: Mapping) -> None:
        given = {tag["Key"]: tag for tag in [*self.tags.get(resource, []), *request.get("Tags", [])]}
        self.tags[resource] = list(given.values())

    def _start(self, endpoint: str, part: str, model: str) -> None:
        """A server for a model: of a variant of the endpoint, or of a component."""
        described = self._of(self.models, "model", model)
        container = described.get("PrimaryContainer") or described["Containers"][0]
        place = self.folder / "endpoints" / endpoint / part
        folder = unpack(self.store.path(uri), place / "model") if (uri := container.get("ModelDataUrl")) else None
        options = serve_options(options_of(container.get("Environment", {}), folder), folder)
        self.servers[endpoint, part] = LocalServer(options, place / "log.txt")


def _summary(found: Mapping, *keys: str) -> dict:
    return {key: found[key] for key in keys}


def _without_tags(request: Mapping) -> dict:
    return {key: value for key, value in request.items() if key != "Tags"}
