"""The bytes that fine-tuning keeps: counted on a real model and its real optimizer."""

import pytest
import torch
from torch import nn

from helpers.errors import CourseError
from helpers.training.memory import training_bytes
from helpers.weights.adapters import lora
from tests.tiny_models import tiny


def held(model):
    """Bytes of weights, gradients and Adam's states after a step."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(torch.tensor([[5, 9, 2]])).logits.float().square().sum().backward()
    optimizer.step()
    return {
        "weights": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(p.grad.nbytes for p in trained),
        "optimizer": sum(t.nbytes for s in optimizer.state.values() for t in s.values() if t.ndim),
    }


def numbers(model):
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    linear -= model.get_output_embeddings().weight.numel()
    return linear, sum(p.numel() for p in model.parameters()) - linear


def test_all_weights():
    model = tiny().float()
    assert training_bytes("full", *numbers(model)) == held(model)


def test_lora():
    model = tiny().to(torch.bfloat16)
    linear, other = numbers(model)
    lora.install(model, rank=4)
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert training_bytes("lora", linear, other, adapter) == held(model)


def test_four_bits_are_between_an_eighth_and_a_seventh_of_float32_and_an_unknown_method_is_refused():
    weights = training_bytes("qlora", 8_000_000, 0)["weights"]
    assert 1 / 8 < weights / 32_000_000 < 1 / 7
    with pytest.raises(CourseError, match="full, lora and qlora"):
        training_bytes("prefix", 1, 1)
