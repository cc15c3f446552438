"""A tiny model behind a local endpoint."""

import pytest

from helpers.cloud.clients import connect
from helpers.cloud.records import Records
from tests.tiny_models import spread
from tests.tiny_tokenizer import tiny_tokenizer


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A tiny model with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

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


@pytest.fixture(scope="session")
def cloud(tmp_path_factory):
    with connect("local", records=Records(tmp_path_factory.mktemp("created"))) as cloud:
        yield cloud


def deploy(cloud, name, model, wait=True, **options):
    """A model, a configuration and an endpoint of one name."""
    environment = {"HF_MODEL_ID": str(model), "OPTION_MAX_MODEL_LEN": "512"} | options
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
def endpoint(cloud, folder):
    return deploy(cloud, "tiny", folder)
