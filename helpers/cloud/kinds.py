"""What SageMaker keeps, by the names that its operations use (notebook 12)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from helpers.cloud.faults import ServiceFault


@dataclass(frozen=True)
class Kind:
    """A kind of resource: in operations and requests, in addresses (ARN), in sentences, and in the answer of a list."""

    operation: str
    address: str
    words: str
    listed: str

    @property
    def name(self) -> str:
        """The member of a request that holds its name."""
        return f"{self.operation}Name"

    @property
    def arn(self) -> str:
        """The member of an answer that holds its address."""
        return f"{self.operation}Arn"


MODEL = Kind("Model", "model", "model", "Models")
CONFIG = Kind("EndpointConfig", "endpoint-config", "endpoint configuration", "EndpointConfigs")
ENDPOINT = Kind("Endpoint", "endpoint", "endpoint", "Endpoints")
COMPONENT = Kind("InferenceComponent", "inference-component", "inference component", "InferenceComponents")
JOB = Kind("TrainingJob", "training-job", "training job", "TrainingJobSummaries")
KINDS = {kind.operation: kind for kind in (MODEL, CONFIG, ENDPOINT, COMPONENT, JOB)}

_OPERATION = re.compile(rf"(Create|Describe|Delete|List|Stop)({'|'.join(KINDS)})(s?)")


def parse(operation: str) -> tuple[str, Kind]:
    """ "DescribeEndpoint" as ("Describe", ENDPOINT); ServiceFault for what is not done locally."""
    found = _OPERATION.fullmatch(operation)
    if found:
        verb, kind = found[1], KINDS[found[2]]
        only = {"Stop": kind is JOB, "Delete": kind is not JOB}
        if only.get(verb, True) and (verb == "List") == bool(found[3]):
            return verb, kind
    known = f"Create, Describe, Delete, List (and Stop, of a job) of {', '.join(KINDS)}"
    raise ServiceFault("UnknownOperationException", f"{operation} is not done locally; there are {known}.")
