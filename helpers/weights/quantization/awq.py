"""AWQ: weights that meet large inputs are rounded more finely, by a scale that costs nothing (notebook 02).

Lin et al., "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and Acceleration", 2023. A few
channels of the input are much larger than the rest, and so are the errors of the weights that meet them. Multiplying
those columns by s and dividing the input by it leaves the function and moves them up on the grid: Q(W s) / s. The scale
is s = mean|x|^alpha, with the alpha whose output error is least; the division goes into the norm or layer before. Then
ranges are clipped: a few large weights lose a little, and all others get finer steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from helpers.weights.quantization.calibration import Hessian, Prompts, layer_by_layer
from helpers.weights.quantization.integer import Grid, Group, IntegerLinear, grouped, round_to_nearest, weight_grid
from helpers.weights.quantization.quality import output_size
from helpers.weights.quantization.rescaling import inner_folds, norm_folds

RATIOS = tuple(1 - step / 10 for step in range(8))  # shares of the full range that are tried, 1 to 0.3


def awq_scale(mean_abs: Tensor, alpha: float) -> Tensor:
    """mean|x|^alpha for each input (in,), divided by the middle of its range; never zero."""
    scale = mean_abs.float().pow(alpha).clamp(min=1e-4)
    return scale / (scale.max() * scale.min()).sqrt()


def rounded_with_scale(
    weight: Tensor,
    scale: Tensor,
    bits: int,
    group: Group = "channel",
    symmetric: bool = True,
) -> Tensor:
    """Q(W s) / s: the weight (out, in) that a layer has in effect when its columns were
    multiplied by the scale (in,) before rounding, and its inputs divided."""
    return round_to_nearest(weight * scale, bits, group, symmetric) / scale


def search_scale(
    weight: Tensor,
    mean_abs: Tensor,
    hessian: Tensor,
    bits: int,
    group: Group = "channel",
    symmetric: bool = True,
    steps: int = 20,
) -> tuple[float, Tensor, dict[float, float]]:
    """(alpha, its scale (in,), |(Q(W s) / s - W) X|^2 by alpha), of alphas from 0, which is
    plain rounding, to 1. Weights (out, in) of layers that read the same are stacked."""
    errors = {}
    for alpha in (step / steps for step in range(steps + 1)):
        scale = awq_scale(mean_abs, alpha)
        rounded = rounded_with_scale(weight, scale, bits, group, symmetric)
        errors[alpha] = output_size(rounded - weight, hessian)
    best = min(errors, key=errors.get)
    return best, awq_scale(mean_abs, best), errors


def clipped_grid(
    weight: Tensor,
    hessian: Tensor,
    bits: int,
    group: Group = "channel",
    symmetric: bool = True,
    ratios: Sequence[float] = RATIOS,
) -> Grid:
    """The grid of a weight (out, in) that reaches, for each scale, as far as leaves the least output error; `hessian`
    (in, in) is that of its inputs. Errors of different groups are taken as if they didn't go together."""
    groups, best, least = grouped(weight, group), None, None
    for ratio in ratios:
        grid = weight_grid(weight * ratio, bits, group, symmetric)
        sizes = _error_by_scale(grid.round(groups) - groups, hessian).reshape(grid.scale.shape)
        if best is None:
            best, least = grid, sizes
            continue
        better = sizes < least
        scale, inverse = torch.where(better, grid.scale, best.scale), torch.where(better, grid.inverse, best.inverse)
        zero = 0 if symmetric else torch.where(better, grid.zero, best.zero)
        best, least = replace(grid, scale=scale, inverse=inverse, zero=zero), torch.minimum(sizes, least)
    return best


def _error_by_scale(error: Tensor, hessian: Tensor) -> Tensor:
    """|E X|^2 for each scale: an error (1, out * in) gives (1,), (out, in) gives (out,), (out, groups, group) (out *
    groups,)."""
    columns = len(hessian)
    if error.ndim == 2:
        rows = error.reshape(-1, columns)
        sizes = ((rows @ hessian) * rows).sum(dim=1)
        return sizes.reshape(len(error), -1).sum(dim=1)
    width = error.shape[-1]
    blocks = torch.stack([hessian[i : i + width, i : i + width] for i in range(0, columns, width)])
    by_group = error.transpose(0, 1)  # (groups, out, group)
    return ((by_group @ blocks) * by_group).sum(dim=2).T.flatten()


@torch.no_grad()
def awq(
    model: nn.Module,
    prompts: Prompts,
    bits: int = 4,
    group: Group = "channel",
    symmetric: bool = True,
    steps: int = 20,
) -> nn.Module:
    """Put the linear layers of the model's blocks into `bits` bits, in place, with scales where something before them
    takes the division: a norm, up_proj for down_proj, v_proj for o_proj. Returns the model.

    Raises:
        CourseError: bits or group don't suit; the prompts reach a layer never, or with NaN; no scale can move.
    """
    folds = [*norm_folds(model), *inner_folds(model)]

    def quantize(block: nn.Module, inputs: dict[str, Hessian]) -> None:
        names = {module: name for name, module in block.named_modules()}
        hessians = {name: seen.matrix for name, seen in inputs.items()}
        for fold in (fold for fold in folds if fold.readers[0] in names):
            readers = [names[linear] for linear in fold.readers]
            weight = torch.cat([linear.weight.float() for linear in fold.readers])
            mean_abs = fold.shared(inputs[readers[0]].mean_abs)
            _, scale, _ = search_scale(weight, mean_abs, hessians[readers[0]], bits, group, symmetric, steps)
            fold.move(scale)
            hessians |= dict.fromkeys(readers, hessians[readers[0]] / torch.outer(scale, scale))  # of x / s
        for name, hessian in hessians.items():
            linear = block.get_submodule(name)
            weight = linear.weight.float()
            grid = clipped_grid(weight, hessian, bits, group, symmetric)
            codes = grid.encode(grouped(weight, group)).reshape(weight.shape)
            block.set_submodule(name, IntegerLinear(codes, grid, linear.bias))

    layer_by_layer(model, prompts, quantize, Hessian)
    return model
