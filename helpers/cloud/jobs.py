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
from helpers.cloud.local_logs import GROUP
from helpers.cloud.store import pack, unpack
from helpers.errors import CourseError

PROGRAM = "train.py"
PARTS = ("helpers", "data/text_to_sql", "data/models")  # of the course, that its training scripts read
REQUIREMENTS = (  # as pyproject.toml has them; the base model comes by a channel
    "transformers>=5.16.1,<5.20",
    "peft>=0.21",
    "bitsandbytes>=0.50",
    "accelerate",
    "safetensors",
    "tensorboard",
    "psutil",
)
ENDED = ("Completed", "Failed", "Stopped")
FIGURES = "/opt/ml/tensorboard"  # where the scripts write TensorBoard's, beside their checkpoints


def pack_code(module: str, archive: Path) -> Path:
    """The course's package, and a script at the top that runs one of its modules: "helpers.training.fine_tune_llm"."""
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
    instance_type: str,
    longest: int = 3600,
) -> dict:
    """What CreateTrainingJob takes; `code` and the channels are addresses in S3, `longest` is in seconds. A channel
    becomes a folder of the container, /opt/ml/input/data/<channel>, which SM_CHANNEL_<CHANNEL> names."""
    own = {"sagemaker_program": PROGRAM, "sagemaker_submit_directory": code}
    image = training_image(instance_type, cloud.region)
    data = [_channel(channel, uri) for channel, uri in channels.items()]
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        "RoleArn": cloud.role,
        "OutputDataConfig": {"S3OutputPath": cloud.address("output")},
        "CheckpointConfig": {"S3Uri": cloud.address(f"checkpoints/{name}")},
        "TensorBoardOutputConfig": {"LocalPath": FIGURES, "S3OutputPath": cloud.address(f"figures/{name}")},
        "ResourceConfig": {"InstanceType": instance_type, "InstanceCount": 1, "VolumeSizeInGB": 100},
        "StoppingCondition": {"MaxRuntimeInSeconds": longest},
        "HyperParameters": {key: json.dumps(value) for key, value in {**own, **hyperparameters}.items()},
    } | ({"InputDataConfig": data} if data else {})


def _channel(name: str, uri: str) -> dict:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def training_image(instance_type: str, region: str) -> str:
    """AWS' PyTorch container for training, by the SDK's own list (no network)."""
    from sagemaker.core import image_uris

    options = dict(version="2.8.0", py_version="py312", instance_type=instance_type, image_scope="training")
    return image_uris.retrieve("pytorch", region, **options)


def follow(cloud: Cloud, name: str, every: float | None = None) -> Iterator[str]:
    """The job's log, line by line, until it ends.

    Raises:
        CourseError: it failed, or was stopped; says why, as SageMaker does.
    """
    token, every = None, every or {"local": 0.5, "aws": 10.0}[cloud.backend]
    while True:
        described = cloud.sagemaker.describe_training_job(TrainingJobName=name)  # ahead of its last lines
        lines, token = _new_lines(cloud, name, token)
        yield from lines
        if described["TrainingJobStatus"] in ENDED:
            break
        time.sleep(every)
    if described["TrainingJobStatus"] != "Completed":
        reason = described.get("FailureReason", "it was stopped")
        raise CourseError(f"The job {name} is {described['TrainingJobStatus']}: {reason}")


def _new_lines(cloud: Cloud, name: str, token: str | None) -> tuple[list[str], str | None]:
    """All that was written since the token."""
    try:
        streams = cloud.logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=f"{name}/")["logStreams"]
    except cloud.logs.exceptions.ResourceNotFoundException:  # an account's first job has not written yet
        return [], token
    lines: list[str] = []
    while streams:
        options = dict(logGroupName=GROUP, logStreamName=streams[0]["logStreamName"], startFromHead=True)
        found = cloud.logs.get_log_events(**options, **({"nextToken": token} if token else {}))
        lines += [event["message"] for event in found["events"]]
        if found["nextForwardToken"] == token:
            break
        token = found["nextForwardToken"]
    return lines, token


def artifact(cloud: Cloud, name: str, folder: Path) -> Path:
    """What a job has made, unpacked; CourseError where it has made nothing."""
    described = cloud.sagemaker.describe_training_job(TrainingJobName=name)
    if not (uri := described.get("ModelArtifacts", {}).get("S3ModelArtifacts")):
        raise CourseError(f"The job {name} has no artifact: it is {described['TrainingJobStatus']}.")
    with tempfile.TemporaryDirectory() as place:
        cloud.store.download(uri, Path(place))
        return unpack(Path(place) / "model.tar.gz", folder)


def losses(cloud: Cloud, name: str, folder: Path) -> list[tuple[int, float]]:
    """(step, loss) of a job that fine-tuned, from TensorBoard's files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cloud.store.download(cloud.address(f"figures/{name}"), folder)
    found = []
    for place in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(place)).Reload()
        if "train/loss" in events.Tags()["scalars"]:
            found += [(event.step, event.value) for event in events.Scalars("train/loss")]
    return found
