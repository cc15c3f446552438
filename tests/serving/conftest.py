"""A real server on the loopback interface, over a tiny model."""

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.engine.engine import Engine
from helpers.serving.run import running
from helpers.serving.worker import Worker
from tests.tiny_models import spread
from tests.tiny_tokenizer import tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return spread(LlamaForCausalLM(config)).float().eval()


@pytest.fixture(scope="session")
def folder(tmp_path_factory, model, tokenizer):
    """The model with its tokenizer, as a folder."""
    place = tmp_path_factory.mktemp("model")
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def engine_of(model, blocks=400, **options):
    """The model is a copy: each engine's thread hooks its output layer."""
    return Engine(copy.deepcopy(model), blocks, **options)


def served(model, tokenizer, blocks=400, max_open=128, dialect="lmi", **options):
    """A worker, and the context of a server over it that gives its address."""
    worker = Worker(engine_of(model, blocks, **options), tokenizer, max_open)
    return worker, running(worker, "tiny", dialect)


@pytest.fixture(scope="session")
def server(model, tokenizer):
    worker, context = served(model, tokenizer)
    with context as url:
        yield SimpleNamespace(url=url, worker=worker)


@pytest.fixture(scope="session")
def old_server(model, tokenizer):
    worker, context = served(model, tokenizer, dialect="lmi-0.26")
    with context as url:
        yield SimpleNamespace(url=url, worker=worker)
