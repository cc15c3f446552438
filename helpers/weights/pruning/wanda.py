"""Wanda: prune by weights *and* activations, each output by itself, with no retraining (notebook 04).

Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", 2023. A weight matters as much as what
it adds to its output: its size times the norm of the input that it is multiplied by. Weights are compared within a row,
so that every output keeps as many. Layers are pruned in order, each by what it reads from those that are pruned.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers.weights.pruning.sparsity import check_fours, check_sparsity, keep_best, keep_two_of_four
from helpers.weights.quantization.calibration import InputSizes, Prompts, layer_by_layer


def wanda_mask(weight: Tensor, squares: Tensor, sparsity: float) -> Tensor:
    """True where a weight (out, in) stays: in each row the share `sparsity` goes that
    matters least. `squares` (in,) is the sum of x^2 of each input over all tokens."""
    check_sparsity(sparsity)
    scores = weight.float().abs() * squares.float().sqrt()
    return keep_best(scores, sparsity)


def wanda_two_of_four(weight: Tensor, squares: Tensor, keep: Callable[[Tensor], Tensor] = keep_two_of_four) -> Tensor:
    """True where a weight (out, in) stays: of each four neighbours in a row the two that matter most, by `keep` of the
    scores. `squares` (in,) is the sum of x^2 of each input over all tokens."""
    check_fours(weight.shape[-1])
    scores = weight.float().abs() * squares.float().sqrt()
    return keep(scores)


@torch.no_grad()
def wanda(
    model: nn.Module,
    prompts: Prompts,
    mask: Callable[[Tensor, Tensor], Tensor],
) -> nn.Module:
    """Prune the linear layers of the model's blocks, in place. `mask(weight, squares)`
    is True where a weight stays; `prompts` are token ids."""

    def prune(block: nn.Module, inputs: dict[str, InputSizes]) -> None:
        for name, seen in inputs.items():
            weight = block.get_submodule(name).weight
            weight.mul_(mask(weight, seen.squares))

    layer_by_layer(model, prompts, prune, InputSizes)
    return model
