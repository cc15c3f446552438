"""Magnitude pruning: the smallest weights of each layer become zero (notebook 04).

The plainest way, and the one to beat: Han et al., "Learning both Weights and Connections for Efficient Neural
Networks", 2015. It needs no data, and knows nothing of what the weights are multiplied by.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers.weights.pruning.sparsity import check_fours, check_sparsity, keep_best, keep_two_of_four
from helpers.weights.quantization.calibration import observed_linears


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """True where a weight (out, in) stays: the smallest of the whole matrix go, however
    they are spread over its rows."""
    check_sparsity(sparsity)
    return keep_best(weight.abs().flatten(), sparsity).view_as(weight)


def magnitude_two_of_four(weight: Tensor) -> Tensor:
    """True where a weight (out, in) stays: of each four neighbours in a row the two
    largest."""
    check_fours(weight.shape[-1])
    return keep_two_of_four(weight.abs())


@torch.no_grad()
def magnitude(model: nn.Module, mask: Callable[[Tensor], Tensor]) -> nn.Module:
    """Prune the linear layers of the model's blocks, in place; `mask(weight)` is True where a weight stays."""
    for linear in observed_linears(model).values():
        linear.weight.mul_(mask(linear.weight))
    return model
