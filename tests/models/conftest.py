"""A base and a data/models of a test's own, with small models."""

import shutil

import pytest
import torch

from helpers.models import package, places
from helpers.models.loading import load
from helpers.models.shapes import shape_only
from helpers.weights.adapters import lora, peft_files
from tests.tiny_tokenizer import tiny_tokenizer


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A base and its tokenizer, as transformers writes them."""
    folder, tokenizer = tmp_path_factory.mktemp("made"), tiny_tokenizer()
    shape_only("llama-tiny", vocab_size=len(tokenizer), tie_word_embeddings=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def base(made, tmp_path, monkeypatch):
    """The folder of a base that stands in for the package's."""
    place = shutil.copytree(made, tmp_path / "build" / "base")
    monkeypatch.setattr(package, "FOLDER", place)
    monkeypatch.setattr(package, "package_folder", lambda: place)
    return place


@pytest.fixture
def folder(base, tmp_path, monkeypatch):
    """A data/models of the test's own, empty, and a base."""
    place = tmp_path / "models"
    place.mkdir()
    monkeypatch.setattr(places, "FOLDER", place)
    return place


@pytest.fixture
def adapted(folder):
    """The base with an adapter that has learned something; it lies in `tuned`, as PEFT writes it."""
    torch.manual_seed(0)
    model = lora.install(load("base")[0], rank=2)
    for _, layer in lora.layers(model):
        layer.b["default"].data.normal_(std=0.1)
    peft_files.save_adapter(model, folder / "tuned", base="base")
    return model
