"""A step by hand is autograd's step through the straight-through estimator."""

import torch

from helpers.weights.quantization.qat import straight_through
from helpers.weights.quantization.qat_by_hand import straight_through_step


def layer():
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(3, 8, generator=draw), torch.randn(20, 8, generator=draw)
    return weight, x, x @ weight.T


def test_it_is_autograds():
    weight, x, y = layer()
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
