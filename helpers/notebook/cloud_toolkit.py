"""What notebook 12b checks: requests for jobs, mistakes in them, and the SDK's own objects on the local service."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError, ParamValidationError

from helpers import models
from helpers.cloud import streams
from helpers.cloud.clients import Cloud, connect
from helpers.cloud.optimization import Recipe, benchmark_requests, optimization_request
from helpers.cloud.sdk import local_sdk
from helpers.cloud.store import pack
from helpers.cloud.validate import validate
from helpers.errors import CourseError
from helpers.notebook.cloud_bench import serving_image
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.serving.backends import serving_properties
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for

Pair = tuple[str, str]
NOBODY = Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1})


def check_mistakes(results: Results, request: Mapping) -> None:
    """Four mistakes in a request that is right; each has to be found, and boto3 alone finds some. Writes the
    invariant."""

    def changed(change) -> dict:
        wrong = copy.deepcopy(dict(request))
        change(wrong)
        return wrong

    eagle = {"ModelSpeculativeDecodingConfig": {"Technique": "MEDUSA"}}
    mistakes = {
        "a misspelled name": changed(lambda wrong: wrong.update(OutputConfiguration=wrong.pop("OutputConfig"))),
        "a number as text": changed(lambda wrong: wrong["StoppingCondition"].update(MaxRuntimeInSeconds="36000")),
        "an instance that is none": changed(lambda wrong: wrong.update(DeploymentInstanceType="ml.laptop")),
        "a technique that is none": changed(lambda wrong: wrong.update(OptimizationConfigs=[eagle])),
    }
    found = 0
    for name, wrong in mistakes.items():
        try:
            validate("CreateOptimizationJob", wrong)
        except CourseError as reason:
            found += 1
            alone = "boto3 finds it" if _boto3_finds(wrong) else "boto3 would send it"
            say(f"{name} ({alone}): {reason}")
    results.invariant("toolkit.mistakes_are_found", found == len(mistakes), found, len(mistakes))


def _boto3_finds(request: Mapping) -> bool:
    """Whether boto3's own client refuses it; nothing is sent: there is nobody at its address."""
    options = dict(region_name="us-east-1", endpoint_url="http://127.0.0.1:9", config=NOBODY)
    try:
        boto3.client("sagemaker", **options).create_optimization_job(**request)
    except ParamValidationError:
        return True
    except EndpointConnectionError:
        return False
    return False


def check_requests(results: Results, recipes: Mapping[str, Recipe], where: Pair, who: Pair) -> None:
    """Every recipe that is a job, as a request; writes the invariant."""
    jobs = {name: recipe for name, recipe in recipes.items() if recipe.config}
    right = 0
    for name, recipe in jobs.items():
        try:
            validate("CreateOptimizationJob", optimization_request(name, *where, *who, [recipe]))
            right += 1
        except CourseError as reason:
            say(f"{name}: {reason}")
    print(f"{right} of {len(jobs)} requests have the right form: {', '.join(jobs)}.")
    results.invariant("toolkit.requests_are_valid", right == len(jobs), right, len(jobs))


def check_benchmarks(results: Results, where: Pair, who: Pair) -> None:
    """The requests for a benchmark and a recommendation, with a workload that the SDK has written; adds them to the
    invariant."""
    with connect("local") as cloud, local_sdk(cloud):
        from sagemaker.serve.ai_inference_recommender import Workload

        options = dict(tokenizer="owner/model", concurrency=16, request_count=64)
        workload = Workload.synthetic(**options, prompt_input_tokens_mean=150, output_tokens_mean=25).to_inline()
    requests = benchmark_requests("course-fine-tuned", who[0], where[1], workload)
    right = 0
    for operation, request in requests.items():
        try:
            validate(operation, request)
            right += 1
            print(f"{operation}: right")
        except CourseError as reason:
            say(str(reason))
    print(json.dumps(json.loads(workload), indent=1))
    before = results.invariants["toolkit.requests_are_valid"]
    count, of = before["count"] + right, before["of"] + len(requests)
    results.invariant("toolkit.requests_are_valid", count == of, count, of)


def deploy_and_ask(results: Results, deploy: Callable[[str, str, str, str], None], instance_type: str) -> None:
    """An endpoint on the local service that `deploy` makes with the SDK (by a name, an image, an archive with
    serving.properties, and a role), found again by the SDK's resources, and asked; writes the invariant."""
    name, example = "by-the-sdk", load_split("test", limit=1)[0]
    prompt = prompt_for(models.tokenizer_of("fine-tuned"), example)
    with connect("local") as cloud, local_sdk(cloud), quiet():
        from sagemaker.core.resources import Endpoint

        for kind in ("model", "endpoint_config", "endpoint"):
            cloud.note(kind, name)
        deploy(name, serving_image(instance_type, cloud.region), _archive(cloud), cloud.role)
        cloud.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
        endpoint = Endpoint.get(endpoint_name=name)
        told = streams.invoke(cloud.runtime, name, prompt, max_new_tokens=64)
    print(f"{type(endpoint).__name__} {endpoint.endpoint_name}: {endpoint.endpoint_status}")
    print(f"{example.question}\n{' '.join(told.text.split())}")
    works = endpoint.endpoint_status == "InService" and told.finish_reason == "stop"
    results.invariant("toolkit.sdk_works_locally", works, int(works), 1)


@contextmanager
def quiet() -> Iterator[None]:
    """The SDK tells all that it does; here what it has done is looked at instead."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _archive(cloud: Cloud) -> str:
    """The fine-tuned model's container; returns its address."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        folder.mkdir()
        options = {"model_id": "fine-tuned", "max_model_len": "1024"}
        (folder / "serving.properties").write_text(serving_properties(options))
        return cloud.upload(pack(folder, Path(place) / "model.tar.gz"), "by-the-sdk/model.tar.gz")
