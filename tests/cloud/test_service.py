"""boto3 against the local service: over real sockets, with the course's server behind an endpoint."""

import json
import re
import subprocess
import sys
import time

import httpx
import psutil
import pytest
from botocore.exceptions import ClientError, EventStreamError, WaiterError

from helpers.cloud import service, streams
from helpers.cloud.clients import connect
from helpers.cloud.records import Records
from helpers.errors import CourseError
from helpers.files import ROOT
from helpers.serving.client import Told
from tests.cloud.conftest import deploy

PROMPT = "How many ships are there?"
ASK = dict(ContentType="application/json", Body=json.dumps({"inputs": PROMPT}))


def refused(call, **request):
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_an_answer_whole_streamed_and_chained(cloud, endpoint):
    whole = streams.invoke(cloud.runtime, endpoint, PROMPT, max_new_tokens=12)
    assert isinstance(whole, Told) and len(whole.pieces) == 12 and whole.cut_off
    *_, told = streams.invoke_stream(cloud.runtime, endpoint, PROMPT, max_new_tokens=12)
    assert told.text == whole.text and told.log_probs == pytest.approx(whole.log_probs, abs=1e-5)
    parts = streams.invoke_chained(cloud.runtime, endpoint, PROMPT, 5, 12)
    assert [len(part.pieces) for part in parts] == [5, 5, 2]


def test_unknown_endpoints_and_bad_payloads_answer_as_sagemaker_does(cloud, endpoint):
    kind, message = refused(cloud.runtime.invoke_endpoint, EndpointName="nobody", **ASK)
    assert kind == "ValidationError" and "Endpoint nobody of account" in message
    bad = ASK | {"Body": json.dumps({"inputs": 5})}
    for call in (cloud.runtime.invoke_endpoint, cloud.runtime.invoke_endpoint_with_response_stream):
        with pytest.raises(cloud.runtime.exceptions.ModelError) as caught:
            call(EndpointName=endpoint, **bad)
        assert caught.value.response["OriginalStatusCode"] == 422
        assert "inputs" in caught.value.response["OriginalMessage"]
    large = ASK | {"Body": b"a" * (26 << 20)}
    kind, message = refused(cloud.runtime.invoke_endpoint, EndpointName=endpoint, **large)
    assert "bytes at most" in message


def test_what_is_there_twice_or_not_at_all(cloud, endpoint):
    for call, named in (
        (cloud.sagemaker.create_endpoint, dict(EndpointName=endpoint, EndpointConfigName="tiny")),
        (cloud.sagemaker.create_model, dict(ModelName=endpoint, ExecutionRoleArn=cloud.role)),
    ):
        kind, message = refused(call, **named)
        assert kind == "ValidationException" and message.startswith("Cannot create already existing")
    for call, named in (
        (cloud.sagemaker.describe_endpoint, dict(EndpointName="nobody")),
        (cloud.sagemaker.delete_model, dict(ModelName="nobody")),
        (cloud.sagemaker.create_endpoint, dict(EndpointName="new", EndpointConfigName="nobody")),
        (cloud.sagemaker.describe_training_job, dict(TrainingJobName="nobody")),
    ):
        kind, message = refused(call, **named)
        assert kind == "ValidationException" and re.match("Could not find|Requested resource not found", message)
    assert refused(cloud.sagemaker.list_domains)[0] == "UnknownOperationException"


def test_lists_and_tags(cloud, endpoint):
    listed = cloud.sagemaker.list_endpoints(NameContains="ti")["Endpoints"]
    assert [one["EndpointName"] for one in listed] == [endpoint] and listed[0]["EndpointStatus"] == "InService"
    assert cloud.sagemaker.list_endpoints(NameContains="no such")["Endpoints"] == []
    assert "StatusEquals" in refused(cloud.sagemaker.list_endpoints, StatusEquals="Failed")[1]
    arn = listed[0]["EndpointArn"]
    cloud.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "course", "Value": "12"}, {"Key": "b", "Value": "1"}])
    cloud.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["b"])
    assert cloud.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "course", "Value": "12"}]


def test_an_endpoint_that_cannot_start_says_why(cloud):
    deploy(cloud, "missing", "/nowhere/at/all", wait=False)
    kind, message = refused(cloud.sagemaker.delete_endpoint, EndpointName="missing")
    assert kind == "ValidationException" and "in-progress" in message
    kind, message = refused(cloud.runtime.invoke_endpoint, EndpointName="missing", **ASK)
    assert kind == "ValidationError" and "not in service" in message
    with pytest.raises(WaiterError):
        waiter = cloud.sagemaker.get_waiter("endpoint_in_service")
        waiter.wait(EndpointName="missing", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    reason = cloud.sagemaker.describe_endpoint(EndpointName="missing")["FailureReason"]
    assert "did not pass the ping health check" in reason and "/nowhere/at/all" in reason
    cloud.sagemaker.delete_endpoint(EndpointName="missing")


def test_components_share_an_endpoint(cloud, folder):
    model, named = "shared", dict(InferenceComponentName="part", EndpointName="shared")
    container = {"Image": "lmi", "Environment": {"HF_MODEL_ID": str(folder), "OPTION_MAX_MODEL_LEN": "512"}}
    cloud.create("model", ModelName=model, PrimaryContainer=container, ExecutionRoleArn=cloud.role)
    variant = dict(VariantName="AllTraffic", InitialInstanceCount=1, InstanceType="ml.g5.2xlarge")
    cloud.create("endpoint_config", EndpointConfigName="shared", ProductionVariants=[variant])
    cloud.create("endpoint", EndpointName="shared", EndpointConfigName="shared")
    cloud.create(
        "inference_component",
        **named,
        VariantName="AllTraffic",
        Specification={"ModelName": model, "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512}},
        RuntimeConfig={"CopyCount": 1},
    )
    described = lambda: cloud.sagemaker.describe_inference_component(InferenceComponentName="part")  # noqa: E731
    while described()["InferenceComponentStatus"] == "Creating":
        time.sleep(0.2)
    told = streams.invoke(cloud.runtime, "shared", PROMPT, "part", max_new_tokens=3)
    assert len(told.pieces) == 3
    assert "header is required" in refused(cloud.runtime.invoke_endpoint, EndpointName="shared", **ASK)[1]
    wrong = dict(EndpointName="shared", InferenceComponentName="other", **ASK)
    assert "other of shared not found" in refused(cloud.runtime.invoke_endpoint, **wrong)[1]
    assert "must be deleted before" in refused(cloud.sagemaker.delete_endpoint, EndpointName="shared")[1]
    cloud.sagemaker.delete_inference_component(InferenceComponentName="part")
    cloud.sagemaker.delete_endpoint(EndpointName="shared")


def test_two_variants_are_refused(cloud):
    variant = dict(ModelName="tiny", InitialInstanceCount=1, InstanceType="ml.g5.2xlarge")
    both = [variant | {"VariantName": name} for name in "ab"]
    kind, message = refused(cloud.sagemaker.create_endpoint_config, EndpointConfigName="two", ProductionVariants=both)
    assert kind == "ValidationException" and "one variant" in message


def test_a_stream_that_breaks_raises_boto3_s_own_error(cloud, endpoint, monkeypatch):
    async def broken(answer):
        yield service.payload_part(b'{"token"')
        yield service.stream_error("ModelStreamError", "it broke off")
        await answer.aclose()

    monkeypatch.setattr(service, "_events", broken)
    with pytest.raises(EventStreamError, match="it broke off"):
        list(streams.invoke_stream(cloud.runtime, endpoint, PROMPT, max_new_tokens=3))


def test_a_stream_without_its_end_is_no_answer(cloud, endpoint, monkeypatch):
    async def short(answer):
        yield service.payload_part(b'{"token": {"id": 1, "text": "a", "log_prob": -1.0}}\n')
        await answer.aclose()

    monkeypatch.setattr(service, "_events", short)
    with pytest.raises(CourseError, match="ended in the middle"):
        list(streams.invoke_stream(cloud.runtime, endpoint, PROMPT, max_new_tokens=3))


def test_a_body_that_is_no_json(cloud):
    answer = httpx.post(cloud.url, content=b"{", headers={"X-Amz-Target": "SageMaker.ListModels"})
    assert answer.status_code == 400 and answer.headers["x-amzn-errortype"] == "SerializationException"


def test_everything_is_deleted_even_after_a_cell_that_raises(tmp_path, folder):
    with pytest.raises(ZeroDivisionError), connect("local", records=Records(tmp_path / "created")) as cloud:
        deploy(cloud, "tiny", folder)
        assert len(cloud.records.all("local")) == 3
        raise ZeroDivisionError
    assert cloud.records.all("local") == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(cloud.url)


def test_a_killed_service_leaves_no_process(tmp_path, folder):
    script = (
        "import time\n"
        "from pathlib import Path\n"
        "from helpers.cloud.clients import connect\n"
        "from helpers.cloud.records import Records\n"
        "from tests.cloud.conftest import deploy\n"
        f"with connect('local', records=Records(Path({str(tmp_path)!r}))) as cloud:\n"
        f"    deploy(cloud, 'tiny', {str(folder)!r})\n"
        "    print('deployed', flush=True)\n"
        "    time.sleep(600)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    while (line := starter.stdout.readline()) and line.strip() != "deployed":
        pass
    children = psutil.Process(starter.pid).children(recursive=True)
    assert any("helpers.serving.course_server" in child.cmdline() for child in children)
    starter.kill()
    starter.wait()
    assert psutil.wait_procs(children, timeout=20)[1] == []
