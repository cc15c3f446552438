"""An endpoint's answers by boto3: whole, as a stream, in several requests one after the other (notebook 12)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from helpers.serving.client import Told, chain, told_by, told_of
from helpers.serving.lines import events_of

LINES = {"ContentType": "application/json"}


def invoke(runtime, endpoint: str, prompt: str, component: str | None = None, **parameters) -> Told:
    """A whole answer, with details."""
    body = {"inputs": prompt, "parameters": parameters | {"details": True}}
    answer = runtime.invoke_endpoint(**_addressed(endpoint, component), Body=json.dumps(body))
    return told_of(json.loads(answer["Body"].read()))


def invoke_stream(runtime, endpoint: str, prompt: str, component: str | None = None, **parameters) -> Iterator[Told]:
    """The answer as it grows; botocore's EventStreamError where the stream breaks."""
    body = {"inputs": prompt, "parameters": parameters | {"details": True}, "stream": True}
    answer = runtime.invoke_endpoint_with_response_stream(**_addressed(endpoint, component), Body=json.dumps(body))
    yield from told_by(events_of(part["PayloadPart"]["Bytes"] for part in answer["Body"]))


def invoke_chained(runtime, endpoint: str, prompt: str, each: int, longest: int) -> list[Told]:
    """As `chain`: an endpoint of SageMaker answers within a minute, or not at all."""
    return chain(lambda text, most: invoke(runtime, endpoint, text, max_new_tokens=most), prompt, each, longest)


def _addressed(endpoint: str, component: str | None) -> dict[str, str]:
    return LINES | {"EndpointName": endpoint} | ({"InferenceComponentName": component} if component else {})
