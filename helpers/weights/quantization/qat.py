"""Quantization-aware training: the forward pass rounds, and the gradient pretends that it didn't (notebook 02d).

Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013 (the straight-through estimator);
Jacob et al., "Quantization and Training of Neural Networks", 2018. Rounding has a gradient of zero nearly everywhere.
With 1 instead, the weights behind the rounded ones move until those on the other side of a step are better.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from helpers.errors import CourseError
from helpers.weights.quantization.calibration import observed_linears
from helpers.weights.quantization.integer import Group, IntegerLinear, round_to_nearest, weight_grid
from helpers.weights.quantization.linear import replace_linears

Pairs = Sequence[tuple[Sequence[int], Sequence[int]]]  # a prompt's token ids, its answer's


def straight_through(
    weight: Tensor,
    bits: int,
    group: Group = "channel",
    symmetric: bool = True,
) -> Tensor:
    """The weight (out, in) rounded to nearest, with the gradient of the weight."""
    rounded = round_to_nearest(weight.detach(), bits, group, symmetric)
    return weight + (rounded - weight).detach()


def straight_through_step(
    weight: Tensor, x: Tensor, y: Tensor, bits: int, lr: float, group: Group = "channel"
) -> Tensor:
    """The weight (out, in) after a step of gradient descent on the mean squared error of
    its rounded self, for inputs x (tokens, in) and outputs y (tokens, out)."""
    error = x @ round_to_nearest(weight, bits, group).T - y
    gradient = 2 * error.T @ x / error.numel()
    return weight - lr * gradient


class FakeQuantized(nn.Module):
    """What a layer's `weight` goes through at each use: rounded, with a straight-through gradient."""

    def __init__(self, bits: int, group: Group = "channel", symmetric: bool = True):
        super().__init__()
        self.bits, self.group, self.symmetric = bits, group, symmetric

    def forward(self, weight: Tensor) -> Tensor:
        return straight_through(weight, self.bits, self.group, self.symmetric)


def install_fake_quant(
    model: nn.Module, bits: int, group: Group = "channel", symmetric: bool = True
) -> list[nn.Parameter]:
    """Round the linear weights of the model's blocks at each use, in place; nothing else of it trains. Returns the
    weights behind the rounded ones."""
    linears = observed_linears(model).values()
    for linear in linears:
        weight_grid(linear.weight, bits, group, symmetric)  # refuses what doesn't suit before anything changes
    model.requires_grad_(False)
    for linear in linears:
        parametrize.register_parametrization(linear, "weight", FakeQuantized(bits, group, symmetric))
    weights = [linear.parametrizations.weight.original for linear in linears]
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def remove_fake_quant(model: nn.Module) -> nn.Module:
    """Put what the weights have become into IntegerLinear layers, in place. Returns the model."""
    roundings = {m: m.parametrizations.weight[0] for m in model.modules() if parametrize.is_parametrized(m, "weight")}
    for linear in roundings:
        parametrize.remove_parametrizations(linear, "weight", leave_parametrized=False)

    def stored(linear: nn.Linear) -> IntegerLinear:
        rounding = roundings[linear]
        return IntegerLinear.of(linear, rounding.bits, rounding.group, rounding.symmetric)

    replace_linears(model, stored, skip=[m for m in model.modules() if m not in roundings])
    return model


@torch.enable_grad()
def train_quantized(
    model: nn.Module,
    pairs: Pairs,
    bits: int = 4,
    group: Group = "channel",
    symmetric: bool = True,
    steps: int = 50,
    lr: float = 2e-5,
    batch_size: int = 8,
    seed: int = 0,
) -> list[float]:
    """Train the model to give the answers with rounded weights, then store it in `bits` bits, in place. Returns each
    step's mean loss. AdamW; the learning rate falls to zero.

    Raises:
        CourseError: there are no pairs, or no steps; bits or group don't suit; the loss is NaN or infinite.
    """
    if not pairs or steps < 1 or batch_size < 1:
        raise CourseError("Training needs pairs of prompt and answer, one step and one pair a step at least.")
    weights, losses = install_fake_quant(model, bits, group, symmetric), []
    optimizer = torch.optim.AdamW(weights, lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    drawn = random.Random(seed)
    for _ in range(steps):
        loss = 0.0
        with parametrize.cached():  # rounds once a step
            for pair in drawn.choices(pairs, k=batch_size):
                share = answer_loss(model, *pair) / batch_size
                share.backward()
                loss += share.item()
        if not math.isfinite(loss):
            raise CourseError("The loss is NaN or infinite: take a smaller learning rate, or train in float32.")
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss)
    remove_fake_quant(model)
    return losses


def answer_loss(model: nn.Module, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """The mean cross-entropy of the answer's tokens after the prompt."""
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    logits = model(ids, logits_to_keep=len(answer) + 1).logits[0, :-1]  # each is about the next token
    return F.cross_entropy(logits.float(), ids[0, -len(answer) :])
