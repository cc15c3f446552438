"""boto3 against the local service: over real sockets, with the course's server behind an endpoint."""

import io
import json
import tarfile
import time

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError, WaiterError

from helpers.cloud import streams
from helpers.cloud.clients import connect
from helpers.errors import CourseError
from helpers.serving.client import Told
from tests.tiny_tokenizer import tiny_tokenizer

ROLE = "arn:aws:iam::000000000000:role/local"
PROMPT = "How many ships are there?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny_models import spread

    torch.manual_seed(0)
    place, tokenizer = tmp_path_factory.mktemp("model"), tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    spread(LlamaForCausalLM(config)).float().save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    with connect("local", tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def endpoint(cloud, folder):
    container = {"Image": "lmi", "Environment": {"HF_MODEL_ID": str(folder), "OPTION_MAX_MODEL_LEN": "512"}}
    cloud.create("model", ModelName="tiny", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = dict(VariantName="AllTraffic", ModelName="tiny", InitialInstanceCount=1, InstanceType="ml.g5.2xlarge")
    cloud.create("endpoint_config", EndpointConfigName="tiny", ProductionVariants=[variant])
    cloud.create("endpoint", EndpointName="tiny", EndpointConfigName="tiny")
    cloud.sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName="tiny", WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    return "tiny"


def refused(call, **request):
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_an_answer_whole_and_streamed(cloud, endpoint):
    whole = streams.invoke(cloud.runtime, endpoint, PROMPT, max_new_tokens=12)
    assert isinstance(whole, Told) and len(whole.pieces) == 12 and whole.cut_off
    *_, told = streams.invoke_stream(cloud.runtime, endpoint, PROMPT, max_new_tokens=12)
    assert told.text == whole.text and told.log_probs == pytest.approx(whole.log_probs, abs=1e-5)


def test_errors_are_sagemaker_s(cloud, endpoint):
    ask = dict(ContentType="application/json", Body=json.dumps({"inputs": PROMPT}))
    kind, message = refused(cloud.runtime.invoke_endpoint, EndpointName="nobody", **ask)
    assert kind == "ValidationError" and "Endpoint nobody of account" in message
    bad = ask | {"Body": json.dumps({"inputs": 5})}
    with pytest.raises(cloud.runtime.exceptions.ModelError) as caught:
        cloud.runtime.invoke_endpoint(EndpointName=endpoint, **bad)
    assert caught.value.response["OriginalStatusCode"] == 422 and "inputs" in caught.value.response["OriginalMessage"]
    kind, message = refused(cloud.sagemaker.create_endpoint, EndpointName=endpoint, EndpointConfigName="tiny")
    assert kind == "ValidationException" and message.startswith("Cannot create already existing endpoint")
    kind, message = refused(cloud.sagemaker.describe_endpoint, EndpointName="nobody")
    assert kind == "ValidationException" and message.startswith("Could not find endpoint")
    kind, _ = refused(cloud.sagemaker.list_domains)
    assert kind == "UnknownOperationException"
    large = ask | {"Body": b"a" * (26 << 20)}
    kind, message = refused(cloud.runtime.invoke_endpoint, EndpointName=endpoint, **large)
    assert "bytes at most" in message


def test_an_endpoint_that_cannot_start_says_why(cloud):
    container = {"Image": "lmi", "Environment": {"HF_MODEL_ID": "/nowhere/at/all"}}
    cloud.create("model", ModelName="missing", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = dict(VariantName="AllTraffic", ModelName="missing", InitialInstanceCount=1, InstanceType="ml.g5.2xlarge")
    cloud.create("endpoint_config", EndpointConfigName="missing", ProductionVariants=[variant])
    cloud.create("endpoint", EndpointName="missing", EndpointConfigName="missing")
    kind, _ = refused(cloud.sagemaker.delete_endpoint, EndpointName="missing")
    assert kind == "ValidationException"  # in progress
    with pytest.raises(WaiterError):
        cloud.sagemaker.get_waiter("endpoint_in_service").wait(
            EndpointName="missing", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
    reason = cloud.sagemaker.describe_endpoint(EndpointName="missing")["FailureReason"]
    assert "did not pass the ping health check" in reason


def test_a_job_trains_and_a_failing_one_says_why(cloud, tmp_path):
    def job(name, script):
        archive = tmp_path / f"{name}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            data = script.encode()
            info = tarfile.TarInfo("train.py")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        code = cloud.upload(archive, f"code/{name}.tar.gz")
        given = {"sagemaker_program": "train.py", "sagemaker_submit_directory": code, "words": "two words"}
        cloud.create(
            "training_job",
            TrainingJobName=name,
            AlgorithmSpecification={"TrainingImage": "pytorch", "TrainingInputMode": "File"},
            RoleArn=ROLE,
            OutputDataConfig={"S3OutputPath": f"s3://{cloud.bucket}/output"},
            ResourceConfig={"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
            StoppingCondition={"MaxRuntimeInSeconds": 600},
            HyperParameters={key: json.dumps(value) for key, value in given.items()},
        )
        for _ in range(300):
            described = cloud.sagemaker.describe_training_job(TrainingJobName=name)
            if described["TrainingJobStatus"] != "InProgress":
                return described
            time.sleep(0.1)
        raise AssertionError("it doesn't end")

    good = job(
        "good", "import os, sys\nopen(os.environ['SM_MODEL_DIR'] + '/made', 'w').write(' '.join(sys.argv[1:]))\n"
    )
    assert good["TrainingJobStatus"] == "Completed"
    with tarfile.open(cloud.store.path(good["ModelArtifacts"]["S3ModelArtifacts"])) as tar:
        assert tar.extractfile("made").read() == b"--words two words"
    bad = job("bad", "raise ValueError('no sense in it')\n")
    assert bad["TrainingJobStatus"] == "Failed" and 'ErrorMessage "ValueError: no sense in it"' in bad["FailureReason"]


def test_a_stream_that_breaks_raises_boto3_s_own_error(cloud, endpoint, monkeypatch):
    from helpers.cloud import service

    async def broken(client, answer):
        yield service.payload_part(b'{"token"')
        yield service.stream_error("ModelStreamError", "it broke off")
        await client.aclose()

    monkeypatch.setattr(service, "_events", broken)
    with pytest.raises(EventStreamError, match="it broke off"):
        list(streams.invoke_stream(cloud.runtime, endpoint, PROMPT, max_new_tokens=3))


def test_aws_without_credentials_is_one_sentence_and_nothing_is_sent(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("COURSE_BACKEND", "aws")
    monkeypatch.setattr(boto3.Session, "client", lambda *args, **more: pytest.fail("a client was made"))
    with pytest.raises(CourseError, match="wants AWS credentials and a region"), connect(folder=tmp_path):
        pass
    monkeypatch.setenv("COURSE_BACKEND", "azure")
    with pytest.raises(CourseError, match="There is no backend 'azure'; there are local, aws"), connect():
        pass


def test_everything_is_deleted_even_after_a_cell_that_raises(tmp_path, folder):
    with pytest.raises(ZeroDivisionError), connect("local", tmp_path) as cloud:
        container = {"Image": "lmi", "Environment": {"HF_MODEL_ID": str(folder)}}
        cloud.create("model", ModelName="tiny", PrimaryContainer=container, ExecutionRoleArn=ROLE)
        variant = dict(VariantName="A", ModelName="tiny", InitialInstanceCount=1, InstanceType="ml.g5.2xlarge")
        cloud.create("endpoint_config", EndpointConfigName="tiny", ProductionVariants=[variant])
        cloud.create("endpoint", EndpointName="tiny", EndpointConfigName="tiny")
        raise ZeroDivisionError
    assert cloud.records.all() == []


def test_unsigned_clients_need_no_credentials(cloud):
    assert Config(signature_version=UNSIGNED).signature_version is UNSIGNED
    assert cloud.sagemaker.list_models()["Models"] is not None
