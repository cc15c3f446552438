"""GPTQ: round a weight column by column, and let the columns still to come make up for each error (notebook 02b).

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022. Inputs of a
layer go together, so what one weight's rounding adds to the output, others can take away. Which, and by how much, says
the Hessian H = X X^T of the layer's squared output error: after column j the rest of the row moves by
-error / U[j, j] * U[j, j + 1:], with U the upper Cholesky factor of H^-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from helpers.errors import CourseError
from helpers.weights.quantization.calibration import Hessian, Prompts, layer_by_layer
from helpers.weights.quantization.integer import Grid, Group, IntegerLinear, weight_grid

BLOCK = 128  # columns that are rounded before the rest of the weight hears of their errors


def inverse_factor(hessian: Tensor, damping: float = 0.01) -> Tensor:
    """U (in, in), upper triangular, with H^-1 = U^T U for the Hessian (in, in) and `damping` times the mean of its
    diagonal added to it. In float64: the condition number of inputs that go together is large.

    Raises:
        CourseError: the Hessian has NaN or infinity in it, or needs more damping.
    """
    if not hessian.isfinite().all():
        raise CourseError("The Hessian has NaN or infinity in it: calibrate the model in float32.")
    h = hessian.to(torch.float64, copy=True)
    diagonal, mean = h.diagonal(), h.diagonal().mean().clamp(min=1e-30)
    diagonal[diagonal == 0] = mean  # an input that never came: its weight is rounded, and nothing else moves
    diagonal += damping * mean
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
        return torch.linalg.cholesky(inverse, upper=True).float()
    except torch.linalg.LinAlgError:
        raise CourseError(f"The Hessian can't be inverted with damping {damping}: take more, 0.1 say.") from None


def round_columns(
    weight: Tensor,
    factor: Tensor,
    grids: Sequence[Grid],
) -> tuple[Tensor, Tensor]:
    """Codes (out, n) of a weight (out, n), and the errors (out, n) that its columns leave
    to those after them. `factor` (n, n) is U; `grids` has one for each column."""
    weight = weight.clone()
    codes, errors = [], torch.zeros_like(weight)
    for j, grid in enumerate(grids):
        column = weight[:, j : j + 1]
        codes.append(grid.encode(column))
        error = (column - grid.decode(codes[j])) / factor[j, j]
        weight[:, j + 1 :] -= error * factor[j, j + 1 :]
        errors[:, j : j + 1] = error
    return torch.cat(codes, dim=1), errors


def gptq_weight(
    weight: Tensor,
    hessian: Tensor,
    bits: int = 4,
    group: Group = "channel",
    symmetric: bool = True,
    damping: float = 0.01,
    act_order: bool = False,
) -> tuple[Tensor, Grid]:
    """Codes (out, in) of a weight (out, in) and their grid, for inputs with the Hessian (in, in).

    A group's grid is made when its first column is reached, of the weights as they have become. `act_order` begins with
    the columns whose inputs are largest, while there are most others to make up for them; grids are made before then.
    """
    weight, columns = weight.detach().float(), weight.shape[1]
    whole = weight_grid(weight, bits, group, symmetric)
    order = hessian.diagonal().argsort(descending=True) if act_order else torch.arange(columns, device=weight.device)
    factor = inverse_factor(hessian[order][:, order], damping)
    remaining, codes, grids = weight[:, order], [], []
    renewed = isinstance(group, int) and not act_order
    width = group if renewed else BLOCK
    for start in range(0, columns, width):
        here, rest = slice(start, start + width), slice(start + width, None)
        if renewed:
            grids.append(_of_group(weight_grid(remaining[:, here], bits, group, symmetric), 0))
            of_columns = grids[-1:] * group
        elif isinstance(group, int):
            of_columns = [_of_group(whole, column // group) for column in order[here].tolist()]
        else:
            of_columns = [whole] * len(order[here])
        block_codes, errors = round_columns(remaining[:, here], factor[here, here], of_columns)
        remaining[:, rest] -= errors @ factor[here, rest]
        codes.append(block_codes)
    return torch.cat(codes, dim=1)[:, order.argsort()], _joined(grids) if renewed else whole


def _of_group(grid: Grid, index: int) -> Grid:
    """The grid of one group, (out, 1), of a weight's, (out, groups, 1)."""
    zero = grid.zero if grid.symmetric else grid.zero[:, index]
    return replace(grid, scale=grid.scale[:, index], inverse=grid.inverse[:, index], zero=zero)


def _joined(grids: Sequence[Grid]) -> Grid:
    """The grid (out, groups, 1) of a weight, of its groups', (out, 1)."""
    scale, inverse = (torch.stack([getattr(g, name) for g in grids], dim=1) for name in ("scale", "inverse"))
    zero = grids[0].zero if grids[0].symmetric else torch.stack([g.zero for g in grids], dim=1)
    return replace(grids[0], scale=scale, inverse=inverse, zero=zero)


@torch.no_grad()
def gptq(
    model: nn.Module,
    prompts: Prompts,
    bits: int = 4,
    group: Group = "channel",
    symmetric: bool = True,
    damping: float = 0.01,
    act_order: bool = False,
) -> nn.Module:
    """Put the linear layers of the model's blocks into `bits` bits, in place, block by block, each for what it reads
    from the quantized ones before it. Returns the model.

    Raises:
        CourseError: bits or group don't suit; the prompts reach a layer never, or with NaN; more damping is needed.
    """

    def quantize(block: nn.Module, inputs: dict[str, Hessian]) -> None:
        for name, seen in inputs.items():
            linear = block.get_submodule(name)
            codes, grid = gptq_weight(linear.weight, seen.matrix, bits, group, symmetric, damping, act_order)
            block.set_submodule(name, IntegerLinear(codes, grid, linear.bias))

    layer_by_layer(model, prompts, quantize, Hessian)
    return model
