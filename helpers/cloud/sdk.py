"""SageMaker's Python SDK (v3) against the local service, by boto3's own variables (notebook 12b)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import boto3

from helpers.cloud.clients import Cloud
from helpers.errors import CourseError

QUIET = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
TAKEN_AWAY = ("AWS_PROFILE", "AWS_SESSION_TOKEN")


@contextmanager
def local_sdk(cloud: Cloud) -> Iterator[None]:
    """For as long as the block lasts, clients that the SDK makes for itself ask the local service, with credentials
    that are none. It is told not to look the role up, and not to tell AWS of its use."""
    if cloud.url is None:
        raise CourseError("The SDK is pointed at the local service only: connect locally.")
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "config.yaml"
        config.write_text(json.dumps(QUIET))
        wanted = {
            "AWS_ENDPOINT_URL": cloud.url,
            "AWS_DEFAULT_REGION": "us-east-1",  # importing the SDK wants one
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
            "SAGEMAKER_VALIDATE_ROLE": "false",
        }
        without = {name: value for name, value in os.environ.items() if name not in TAKEN_AWAY}
        with (
            mock.patch.dict(os.environ, without | wanted, clear=True),
            mock.patch.object(boto3, "DEFAULT_SESSION", None),
        ):
            from sagemaker.core.utils.utils import SageMakerClient

            SageMakerClient.reset()
            try:
                yield
            finally:
                SageMakerClient.reset()
