"""All ways of a training step learn the same, and the savings are really made."""

import pytest
import torch

from helpers.training import step_speed
from helpers.training.completions import IGNORED, Encoded
from helpers.training.step_speed import COMPILED, LEARNED, PACKED, PLAIN, PRODUCTS, SHARED, time_ways
from helpers.weights.adapters import lora
from tests.tiny_models import tiny

GROUPS = [
    [Encoded([5, 6, 7, 8, *own], [IGNORED] * 4 + own) for own in ([8, 9], [4, 3, 2], [7])],
    [Encoded([9, 8, 3, 4, 1], [IGNORED] * 3 + [4, 1])],
]


def timed(compiled=False):
    model = lora.install(tiny("llama"), rank=2).train()
    for _, layer in lora.layers(model):
        layer.b["default"].data.normal_(std=0.1)
    return time_ways(model, GROUPS, 16, 0, rounds=2, compiled=compiled)


def test_every_way_learns_the_same_tokens():
    times = timed()
    assert list(times.seconds) == [PLAIN, PACKED, SHARED, LEARNED, PRODUCTS]
    assert all(len(seconds) == 2 for seconds in times.seconds.values())
    assert times.num_tokens == 6 + 7 + 5 + 5
    for way, loss in times.losses.items():
        assert loss == pytest.approx(times.losses[PLAIN], rel=1e-5), way
    assert times.places[PLAIN] == 4 * 7 > times.places[PACKED] > times.places[SHARED]


@pytest.mark.slow
def test_compiled_layers_are_the_last_way():
    times = timed(compiled=True)
    assert list(times.seconds)[-1] == COMPILED
    assert times.losses[COMPILED] == pytest.approx(times.losses[PLAIN], rel=1e-5)


def test_a_way_that_learns_something_else_would_be_seen(monkeypatch):
    real = step_speed.logits_only_where
    monkeypatch.setattr(step_speed, "logits_only_where", lambda learned, model: real(learned.roll(1, 1), model))
    times = timed()
    assert abs(times.losses[LEARNED] - times.losses[SHARED]) > 1e-3


def test_the_model_is_left_as_it_was():
    model = lora.install(tiny("llama"), rank=2).train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    attention = model.config._attn_implementation
    time_ways(model, GROUPS, 16, 0, rounds=1, compiled=False)
    assert model.config._attn_implementation == attention
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
