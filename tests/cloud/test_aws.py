"""The way to AWS: nothing is sent before everything is said, and the same code then speaks to whatever boto3 finds.

Here boto3 finds the local service, by its own variable: AWS itself is not asked.
"""

import time

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError

from helpers.cloud import clients
from helpers.cloud.budget import Budget
from helpers.cloud.clients import connect, left_over
from helpers.cloud.prices import Prices
from helpers.cloud.records import Entry, Records
from helpers.errors import CourseError
from tests.cloud.conftest import deploy

PRICES = Prices("2026-09", {"ml.g5.2xlarge": 1.5})


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("COURSE_AWS_CONFIRMED", raising=False)


@pytest.fixture
def account(no_account, monkeypatch, cloud, tmp_path):
    """Credentials that are none, and the local service in AWS' place."""
    account = {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": cloud.url,
        "COURSE_SAGEMAKER_ROLE": cloud.role,
        "COURSE_S3_BUCKET": "mine",
        "COURSE_AWS_CONFIRMED": "yes",
        "COURSE_BUILD": str(tmp_path),
    }
    for name, value in account.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(clients.DELETION, "aws", (60, 0.5))


def budget(at_most=10.0):
    return Budget(at_most, 1.0, {"ml.g5.2xlarge": 2}, PRICES)


def nothing_is_sent(monkeypatch):
    monkeypatch.setattr(boto3.Session, "client", lambda *args, **more: pytest.fail("a client was made"))


def test_without_credentials_it_is_one_sentence(no_account, monkeypatch):
    nothing_is_sent(monkeypatch)
    monkeypatch.setenv("COURSE_BACKEND", "aws")
    with pytest.raises(CourseError, match="wants AWS credentials and a region"), connect(budget=budget()):
        pass
    monkeypatch.setenv("COURSE_BACKEND", "azure")
    with pytest.raises(CourseError, match="There is no backend 'azure'; there are local, aws"), connect():
        pass


def test_without_a_role_a_budget_or_a_yes_nothing_is_sent(account, monkeypatch):
    nothing_is_sent(monkeypatch)
    with pytest.raises(CourseError, match="say by a Budget"), connect("aws"):
        pass
    with pytest.raises(CourseError, match=r"you allow \$0.00"), connect("aws", budget(0.0)):
        pass
    monkeypatch.delenv("COURSE_AWS_CONFIRMED")
    monkeypatch.setattr(Budget.confirm, "__defaults__", (lambda question: "no",))
    with pytest.raises(CourseError, match="Nobody said yes"), connect("aws", budget()):
        pass
    monkeypatch.delenv("COURSE_SAGEMAKER_ROLE")
    with pytest.raises(CourseError, match="Set COURSE_SAGEMAKER_ROLE"), connect("aws", budget()):
        pass


def watchers(session):
    found = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return [words for words in found if "--after" in words and session in words]


def test_the_same_code_and_everything_is_deleted(account, cloud, folder):
    with connect("aws", budget()) as there:
        assert len(watchers(there.session)) == 1
        deploy(there, "of-aws", folder)
        assert there.sagemaker.describe_endpoint(EndpointName="of-aws")["EndpointStatus"] == "InService"
        assert there.budget.taken == 1.5
        assert len(there.records.all("aws", there.session)) == 3 and there.records.all("local") == []
    assert there.records.all("aws") == [] and watchers(there.session) == []
    assert cloud.sagemaker.list_endpoints(NameContains="of-aws")["Endpoints"] == []


def test_what_costs_too_much_is_not_created(account, cloud, folder):
    with connect("aws", budget(3.0)) as there:
        there.budget.taken = 2.0
        with pytest.raises(CourseError, match=r"more than the \$3.00 that you allow"):
            deploy(there, "too-much", folder, wait=False)
        assert cloud.sagemaker.list_endpoints(NameContains="too-much")["Endpoints"] == []
        there.budget.began -= 3601
        there.budget.taken = 0.0
        with pytest.raises(CourseError, match="hours are over"):
            there.create("endpoint", EndpointName="late", EndpointConfigName="too-much")
        there.budget.began += 3601
        there.budget.taken = 2.0
        request = {"ResourceConfig": {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1}}
        request |= {"TrainingJobName": "a", "StoppingCondition": {"MaxRuntimeInSeconds": 7200}}
        with pytest.raises(CourseError, match=r"may cost \$3.00"):
            there.create("training_job", **request)


def test_what_a_dead_kernel_left_is_deleted_by_the_command(account, cloud, folder, capsys):
    name = deploy(cloud, "left", folder)
    records = Records()
    for kind in ("endpoint", "model", "endpoint_config"):
        records.add(Entry("aws", "dead", kind, name))
    records.add(Entry("aws", "dead", "model", "never-made"))
    records.add(Entry("aws", "other", "model", "of-another-session"))
    assert left_over("list") == 0 and len(records.all("aws")) == 5
    began = time.monotonic()
    assert left_over("cleanup", session="dead", sure=True, after=0.2) == 0
    assert time.monotonic() - began >= 0.2
    assert records.all("aws") == [Entry("aws", "other", "model", "of-another-session")]
    assert "4 of 4 deleted" in capsys.readouterr().out
    assert cloud.sagemaker.list_endpoints(NameContains="left")["Endpoints"] == []


def test_what_was_there_before_is_not_ours_to_delete(account, cloud, folder):
    deploy(cloud, "taken", folder, wait=False)
    with connect("aws", budget()) as there:
        config = dict(EndpointName="taken", EndpointConfigName="taken")
        with pytest.raises(ClientError, match="already existing"):
            there.create("endpoint", **config)
        assert there.records.all("aws") == [] and there.budget.taken == 0.0
    assert cloud.sagemaker.describe_endpoint(EndpointName="taken")["EndpointStatus"] in ("Creating", "InService")
