"""Memory is in GiB, and weights count once."""

import torch

from helpers.measuring.memory import peak_memory, weight_bytes


def test_memory_is_reported():
    assert 0.05 < peak_memory()["process"] < 100


def test_shared_weights_count_once():
    model = torch.nn.ModuleList([torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)])
    assert weight_bytes(model) == 128
    model[1].weight = model[0].weight
    assert weight_bytes(model.half()) == 32
