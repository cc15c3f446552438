"""The forward pass rounds, the gradient doesn't know; training with rounded weights beats rounding trained ones."""

import copy

import pytest
import torch
from torch import nn

from helpers.errors import CourseError
from helpers.weights.quantization import qat
from helpers.weights.quantization.integer import IntegerLinear, install, round_to_nearest
from helpers.weights.quantization.qat import (
    answer_loss,
    install_fake_quant,
    remove_fake_quant,
    straight_through,
    straight_through_step,
    train_quantized,
)
from tests.tiny_models import tiny

PAIRS = [([i, i + 1, i + 2], [(3 * i + j) % 97 for j in range(5)]) for i in range(6)]


def mean_loss(model):
    with torch.no_grad():
        return sum(answer_loss(model, *pair).item() for pair in PAIRS) / len(PAIRS)


def ready(kind="llama"):
    return tiny(kind).float()


@pytest.mark.parametrize("group", ["channel", 16])
def test_rounded_forward_and_the_weight_s_gradient(group):
    weight = torch.randn(8, 32, requires_grad=True)
    rounded = straight_through(weight, 3, group)
    torch.testing.assert_close(rounded, round_to_nearest(weight.detach(), 3, group))
    factors = torch.randn(8, 32)
    (rounded * factors).sum().backward()
    assert torch.equal(weight.grad, factors)


def test_a_gradient_that_rounding_stops_is_caught(monkeypatch):
    monkeypatch.setattr(
        qat, "straight_through", lambda weight, *how: weight * 0 + round_to_nearest(weight.detach(), *how)
    )
    model = ready()
    before = [p.clone() for p in model.parameters()]
    weights = install_fake_quant(model, 3)
    answer_loss(model, *PAIRS[0]).backward()
    assert not any(weight.grad.any() for weight in weights) and len(before) == len(list(model.parameters()))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
def test_the_model_rounds_at_each_use_and_then_for_good(kind):
    model, ids = ready(kind), torch.arange(12)[None]
    weights = install_fake_quant(model, 4, 16)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(w) for w in weights}
    with torch.no_grad():
        there = model(ids).logits
        torch.testing.assert_close(there, install(ready(kind), 4, 16)(ids).logits, rtol=1e-4, atol=1e-4)
        stored = remove_fake_quant(model)
        torch.testing.assert_close(stored(ids).logits, there, rtol=1e-4, atol=1e-4)
    assert sum(isinstance(m, IntegerLinear) for m in stored.modules()) == len(weights)
    assert type(stored.get_output_embeddings()) is nn.Linear


@pytest.mark.parametrize("kind", ["llama", "falcon"])
def test_training_with_rounded_weights_helps(kind):
    model = ready(kind)
    plain = mean_loss(install(copy.deepcopy(model), 3))
    losses = train_quantized(model, PAIRS, 3, steps=30, lr=3e-3, batch_size=6)
    assert len(losses) == 30 and losses[-1] < 0.5 * losses[0]
    assert mean_loss(model) < 0.5 * plain


def test_it_learns_the_answer_and_not_the_prompt(model):
    prompt, answer = [1, 2, 3], [4, 5]
    with torch.no_grad():
        log_probs = model(torch.tensor([prompt + answer])).logits[0].float().log_softmax(-1)
        there = -(log_probs[2, 4] + log_probs[3, 5]) / 2
        torch.testing.assert_close(answer_loss(model, prompt, answer), there)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(pairs=[]), "needs pairs"),
        (dict(steps=0), "one step"),
        (dict(bits=1), "2 to 8 bits"),
        (dict(group=48), "don't divide"),
        (dict(lr=1e30, steps=3), "smaller learning rate|NaN or infinite"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(CourseError, match=message):
        train_quantized(ready(), **(dict(pairs=PAIRS) | options))


def one_layer():
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(3, 8, generator=draw), torch.randn(20, 8, generator=draw)
    return weight, x, x @ weight.T


def test_a_step_by_hand_is_autograds():
    weight, x, y = one_layer()
    for bits, group in ((2, "channel"), (3, 4)):
        leaf = weight.clone().requires_grad_()
        loss = (x @ straight_through(leaf, bits, group).T - y).square().mean()
        (gradient,) = torch.autograd.grad(loss, leaf)
        expected = weight - 0.1 * gradient
        assert torch.allclose(straight_through_step(weight, x, y, bits, 0.1, group), expected, atol=1e-6)


def test_weights_that_learn_to_be_rounded_have_the_smaller_error():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(512, 16, generator=draw) @ torch.randn(16, 32, generator=draw)  # inputs that go together
    weight = torch.randn(32, 32, generator=draw)
    y, learned = x @ weight.T, weight
    for done in range(200):
        learned = straight_through_step(learned, x, y, 3, 3e-3 * (1 - done / 200))

    def loss(w):
        return (x @ straight_through(w, 3).T - y).square().mean().item()

    assert loss(learned) < 0.7 * loss(weight)
