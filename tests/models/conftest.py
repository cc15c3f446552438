"""A folder of small models that stands in for data/models."""

import pytest
import torch

from helpers.models import places
from helpers.models.loading import load
from helpers.models.shapes import shape_only
from helpers.text_to_sql.tokenizer import build_tokenizer, training_mix
from helpers.weights.adapters import lora, peft_files


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A base and its tokenizer, as transformers writes them."""
    folder, examples = tmp_path_factory.mktemp("made"), training_mix(40)
    tokenizer = build_tokenizer(examples, [e.answer for e in examples], vocabulary=600)
    shape_only("llama-tiny", vocab_size=len(tokenizer), tie_word_embeddings=False).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A data/models of the test's own, with a base."""
    import shutil

    shutil.copytree(made / "base", tmp_path / "base")
    monkeypatch.setattr(places, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def adapted(folder):
    """The base with an adapter that has learned something; it lies in `tuned`, as PEFT writes it."""
    torch.manual_seed(0)
    model = lora.install(load("base")[0], rank=2)
    for _, layer in lora.layers(model):
        layer.b["default"].data.normal_(std=0.1)
    peft_files.save_adapter(model, folder / "tuned", base="base")
    return model
