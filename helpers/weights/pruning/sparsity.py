"""Which weights stay: a mask made from scores, so many of each row, or two of each four neighbours (notebook 04).

A method says how much each weight matters (magnitude.py, wanda.py); what is left to do is the same for all of them. 2:4
is the pattern that GPUs can skip (Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor

from helpers.errors import CourseError


def keep_best(scores: Tensor, sparsity: float) -> Tensor:
    """True where a weight stays: in each row of scores (..., n) the `sparsity` x n lowest
    ones go. Of equal scores either may go."""
    removed = round(sparsity * scores.shape[-1])
    # No order is needed: to find the lowest takes a fraction of the time of sorting.
    lowest = scores.topk(removed, dim=-1, largest=False, sorted=False).indices
    mask = torch.ones_like(scores, dtype=torch.bool)
    return mask.scatter(-1, lowest, False)


def keep_two_of_four(scores: Tensor) -> Tensor:
    """True where a weight stays: of each four neighbours in a row of scores (..., n) the
    two best. Of equal scores either may stay."""
    fours = scores.unflatten(-1, (-1, 4))  # (..., n / 4, 4)
    return keep_best(fours, 0.5).flatten(-2)


def check_sparsity(sparsity: float) -> float:
    """The sparsity, if it is one: a share of weights that go, and not all of them."""
    if not 0 <= sparsity < 1:
        raise CourseError(f"A sparsity is the share of weights that go, from 0 up to less than 1, not {sparsity}.")
    return sparsity


def check_fours(in_features: int) -> None:
    """Refuse rows that can't be cut into fours."""
    if in_features % 4:
        raise CourseError(f"2:4 needs rows that four divides, not {in_features} weights: prune to a sparsity instead.")


def zeros_by_row(weight: Tensor) -> Tensor:
    """The share of zeros in each row of a weight (out, in): (out,), float64."""
    return (weight == 0).double().mean(dim=-1)
