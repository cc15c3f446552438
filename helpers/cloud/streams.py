"""A streamed answer of an endpoint, by boto3: the container's lines, put together from payload parts (notebook 12)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from helpers.serving.client import Told, log_prob_of
from helpers.serving.lines import events_of


def invoke(runtime, endpoint: str, prompt: str, **parameters) -> Told:
    """A whole answer, with details."""
    body = {"inputs": prompt, "parameters": parameters | {"details": True}}
    answer = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=json.dumps(body))
    told = json.loads(answer["Body"].read())
    tokens = told["details"]["tokens"]
    pieces, log_probs = [token["text"] for token in tokens], [log_prob_of(token) for token in tokens]
    return Told(told["generated_text"], pieces, log_probs, told["details"]["finish_reason"])


def invoke_stream(runtime, endpoint: str, prompt: str, **parameters) -> Iterator[Told]:
    """The answer as it grows; botocore's EventStreamError where the stream breaks."""
    body = {"inputs": prompt, "parameters": parameters | {"details": True}, "stream": True}
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName=endpoint, ContentType="application/json", Body=json.dumps(body)
    )
    told = Told()
    for event in events_of(part["PayloadPart"]["Bytes"] for part in answer["Body"]):
        token = event["token"]
        told.pieces.append(token["text"])
        told.log_probs.append(log_prob_of(token))
        told.text += token["text"]
        if event.get("details"):
            told.finish_reason, told.text = event["details"]["finish_reason"], event["generated_text"]
        yield told
