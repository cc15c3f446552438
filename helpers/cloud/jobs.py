"""Training jobs as SageMaker's script mode has them: packed code, hyperparameters, channels, logs (notebook 12)."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from helpers import files
from helpers.cloud.clients import Cloud
from helpers.cloud.store import pack, unpack
from helpers.errors import CourseError

PROGRAM = "train.py"
PARTS = ("helpers", "data/text_to_sql", "data/models")  # of the course, that its training scripts read
REQUIREMENTS = ("peft", "accelerate", "safetensors", "tensorboard")  # beside what AWS' PyTorch containers have
LOGS = "/aws/sagemaker/TrainingJobs"
ENDED = ("Completed", "Failed", "Stopped")


def pack_code(module: str, archive: Path) -> Path:
    """The course's package, and a script at the top that runs one of its modules: `helpers.training.fine_tune_llm`."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for part in PARTS:
            leave_out = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(files.ROOT / part, folder / part, ignore=leave_out)
        (folder / PROGRAM).write_text(f'import runpy\n\nrunpy.run_module("{module}", run_name="__main__")\n')
        (folder / "requirements.txt").write_text("\n".join(REQUIREMENTS) + "\n")
        return pack(folder, archive)


def training_request(
    cloud: Cloud,
    name: str,
    code: str,
    hyperparameters: Mapping[str, object],
    channels: Mapping[str, str],
    *,
    instance_type: str = "ml.g5.2xlarge",
    image: str | None = None,
    longest: int = 3600,
) -> dict:
    """What CreateTrainingJob takes; `code` and the channels are addresses in S3. An instance type costs on AWS, and is
    recorded here."""
    own = {"sagemaker_program": PROGRAM, "sagemaker_submit_directory": code}
    data = [
        {
            "ChannelName": channel,
            "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
            },
        }
        for channel, uri in channels.items()
    ]
    image = image or training_image(instance_type)
    request = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        "RoleArn": cloud.role,
        "OutputDataConfig": {"S3OutputPath": f"s3://{cloud.bucket}/output"},
        "CheckpointConfig": {"S3Uri": f"s3://{cloud.bucket}/checkpoints/{name}"},
        "ResourceConfig": {"InstanceType": instance_type, "InstanceCount": 1, "VolumeSizeInGB": 100},
        "StoppingCondition": {"MaxRuntimeInSeconds": longest},
        "HyperParameters": {key: json.dumps(value) for key, value in {**own, **hyperparameters}.items()},
    }
    return request | ({"InputDataConfig": data} if data else {})


def training_image(instance_type: str, region: str = "us-east-1") -> str:
    """AWS' PyTorch container for training, by the SDK's own list (no network)."""
    from sagemaker.core import image_uris

    options = dict(version="2.8.0", py_version="py312", instance_type=instance_type, image_scope="training")
    return image_uris.retrieve("pytorch", region, **options)


def follow(cloud: Cloud, name: str, log_folder: Path | None = None, every: float = 1.0) -> Iterator[str]:
    """The job's log, line by line, until it ends.

    Raises:
        CourseError: it failed, or was stopped; says why, as SageMaker does.
    """
    seen, token = 0, None
    while True:
        described = cloud.sagemaker.describe_training_job(TrainingJobName=name)
        if cloud.store:
            text = (log_folder / name / "log.txt").read_text(errors="replace")
            yield from text[seen:].splitlines()
            seen = len(text)
        else:
            lines, token = _from_cloudwatch(name, token)
            yield from lines
        if described["TrainingJobStatus"] in ENDED:
            break
        time.sleep(every)
    if described["TrainingJobStatus"] != "Completed":
        reason = described.get("FailureReason", "it was stopped")
        raise CourseError(f"The job {name} is {described['TrainingJobStatus']}: {reason}.")


def _from_cloudwatch(name: str, token: str | None) -> tuple[list[str], str | None]:
    import boto3

    logs = boto3.client("logs")
    streams = logs.describe_log_streams(logGroupName=LOGS, logStreamNamePrefix=name)["logStreams"]
    if not streams:
        return [], token
    options = {"nextToken": token} if token else {"startFromHead": True}
    found = logs.get_log_events(logGroupName=LOGS, logStreamName=streams[0]["logStreamName"], **options)
    return [event["message"] for event in found["events"]], found["nextForwardToken"]


def artifact(cloud: Cloud, name: str, folder: Path) -> Path:
    """What a job has made, unpacked."""
    described = cloud.sagemaker.describe_training_job(TrainingJobName=name)
    uri = described["ModelArtifacts"]["S3ModelArtifacts"]
    if cloud.store:
        return unpack(cloud.store.path(uri), folder)
    import boto3

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    with tempfile.TemporaryDirectory() as place:
        archive = Path(place) / "model.tar.gz"
        boto3.client("s3").download_file(bucket, key, str(archive))
        return unpack(archive, folder)
