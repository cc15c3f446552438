"""A tiny model behind a local endpoint."""

import pytest

from helpers.cloud.clients import connect
from helpers.cloud.records import Records
from tests.serving.conftest import folder, model, tokenizer  # noqa: F401


@pytest.fixture(scope="session")
def cloud(tmp_path_factory):
    with connect("local", records=Records(tmp_path_factory.mktemp("created"))) as cloud:
        yield cloud


def deploy(cloud, name, place, wait=True, **options):
    """A model, which lies at a place, a configuration and an endpoint of one name."""
    environment = {"HF_MODEL_ID": str(place), "OPTION_MAX_MODEL_LEN": "512"} | options
    container = {"Image": "lmi", "Environment": environment}
    cloud.create("model", ModelName=name, PrimaryContainer=container, ExecutionRoleArn=cloud.role)
    variant = dict(VariantName="AllTraffic", ModelName=name, InitialInstanceCount=1, InstanceType="ml.g5.2xlarge")
    cloud.create("endpoint_config", EndpointConfigName=name, ProductionVariants=[variant])
    cloud.create("endpoint", EndpointName=name, EndpointConfigName=name)
    if wait:
        waiter = cloud.sagemaker.get_waiter("endpoint_in_service")
        waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    return name


@pytest.fixture(scope="session")
def endpoint(cloud, folder):  # noqa: F811
    return deploy(cloud, "tiny", folder)
