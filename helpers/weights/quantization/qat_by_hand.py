"""Quantization-aware training of one linear layer, its gradient written out (notebook 02d).

Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013. `qat.py` lets autograd do the
same for a whole model.
"""

from __future__ import annotations

from torch import Tensor

from helpers.weights.quantization.integer import Group, round_to_nearest


def straight_through_step(
    weight: Tensor, x: Tensor, y: Tensor, bits: int, lr: float, group: Group = "channel"
) -> Tensor:
    """The weight (out, in) after a step of gradient descent on the mean squared error of
    its rounded self, for inputs x (tokens, in) and outputs y (tokens, out)."""
    error = x @ round_to_nearest(weight, bits, group).T - y
    gradient = 2 * error.T @ x / error.numel()
    return weight - lr * gradient
