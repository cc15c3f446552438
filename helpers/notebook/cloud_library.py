"""What notebooks 12 and 12b show of the SDK: containers, and what became of the published notebooks' calls."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import NamedTuple
from unittest import mock

from helpers.notebook.results import Results

IMAGES = {"vLLM": "vllm", "TGI": "huggingface-llm"}


def other_images(instance_type: str, region: str) -> dict[str, str]:
    """The containers beside LMI that the SDK lists, without a network."""
    from sagemaker.core import image_uris

    options = dict(instance_type=instance_type, image_scope="inference")
    return {name: image_uris.retrieve(framework, region, **options) for name, framework in IMAGES.items()}


class Call(NamedTuple):
    """A name of the published notebooks (SDK v2), and what stands in its place: in v3, and in boto3."""

    v2: str
    v3: str
    boto3: str


CALLS = (
    Call("sagemaker.get_execution_role", "sagemaker.core.helper.session_helper.get_execution_role", "-"),
    Call("sagemaker.Session", "sagemaker.core.helper.session_helper.Session", "boto3.client"),
    Call("sagemaker.image_uris.retrieve", "sagemaker.core.image_uris.retrieve", "-"),
    Call("sagemaker.pytorch.PyTorch", "sagemaker.train.ModelTrainer", "create_training_job"),
    Call("sagemaker.huggingface.HuggingFace", "sagemaker.train.ModelTrainer", "create_training_job"),
    Call("sagemaker.huggingface.HuggingFaceModel", "sagemaker.serve.ModelBuilder", "create_model"),
    Call("sagemaker.huggingface.get_huggingface_llm_image_uri", "sagemaker.core.image_uris.retrieve", "-"),
    Call("sagemaker.model.Model", "sagemaker.core.resources.Model", "create_model"),
    Call("sagemaker.model.Model.deploy", "sagemaker.serve.ModelBuilder.deploy", "create_endpoint"),
    Call("sagemaker.djl_inference.DJLModel", "sagemaker.serve.ModelBuilder", "create_model"),
    Call("sagemaker.predictor.Predictor.predict", "sagemaker.core.resources.Endpoint.invoke", "invoke_endpoint"),
    Call("sagemaker.serve.builder.model_builder.ModelBuilder", "sagemaker.serve.ModelBuilder", "-"),
    Call(
        "sagemaker.predictor.Predictor.delete_endpoint", "sagemaker.core.resources.Endpoint.delete", "delete_endpoint"
    ),
)


def exists(name: str) -> bool:
    """Whether a dotted name can be imported here: a module's member, or a member of its member."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def show_calls(results: Results, calls: Sequence[Call] = CALLS) -> None:
    """Which of the published names are still there, and whether their successors are; writes both counts."""
    region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")  # importing the SDK wants one
    with mock.patch.dict(os.environ, {"AWS_DEFAULT_REGION": region}):
        old, new = [exists(call.v2) for call in calls], [exists(call.v3) for call in calls]
    for call, there in zip(calls, old, strict=True):
        print(f"{'still there' if there else 'gone':12}{call.v2}")
        print(f"{'':12}{call.v3}" + (f"; boto3: {call.boto3}" if call.boto3 != "-" else ""))
    results.metric("toolkit.published_names_left", sum(old), "names", n=len(calls))
    results.invariant("toolkit.successors_exist", all(new), sum(new), len(calls))
    print(f"{sum(old)} of {len(calls)} published names are left; {sum(new)} successors exist.")
