"""SmoothQuant: move outliers from activations into weights, then multiply bytes by bytes (notebook 02c).

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2022. A channel
of outliers takes the codes of all other inputs of its token; weights have none. Dividing channel j of the input by
s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) and multiplying the weight's column by it leaves the function and shares the
burden; the division goes into the norm before. Activations then have a scale a token, weights a scale a channel (W8A8).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from helpers.errors import CourseError
from helpers.weights.quantization import llm_int8
from helpers.weights.quantization.calibration import InputSizes, Prompts, observe
from helpers.weights.quantization.rescaling import norm_folds


def smooth_scale(
    activation_absmax: Tensor,
    weight_absmax: Tensor,
    alpha: float = 0.5,
) -> Tensor:
    """s (in,) from the largest magnitudes of each input channel and of the weight's columns,
    both (in,). With alpha 1 the weights take all of the spread, with 0 the activations."""
    activation, weight = activation_absmax.clamp(min=1e-5), weight_absmax.clamp(min=1e-5)
    return activation**alpha / weight ** (1 - alpha)


def smooth(model: nn.Module, sizes: Mapping[str, InputSizes], alpha: float = 0.5) -> nn.Module:
    """Move scales from the norms into the linear layers that read them, in place: the model computes the same. `sizes`
    is what `observe` saw of its inputs, by the layer's name. Returns the model.

    Raises:
        CourseError: alpha isn't 0 to 1; no scale can move.
    """
    if not 0 <= alpha <= 1:
        raise CourseError(f"SmoothQuant's alpha goes from 0 to 1, not {alpha}.")
    names = {module: name for name, module in model.named_modules()}
    for fold in norm_folds(model):
        columns = torch.cat([linear.weight.detach() for linear in fold.readers]).float().abs().amax(dim=0)
        fold.move(smooth_scale(sizes[names[fold.readers[0]]].absmax, columns, alpha))
    return model


def w8a8(model: nn.Module) -> nn.Module:
    """Put all linear layers but the output's into plain W8A8, in place: no column is kept apart. Returns the model."""
    return llm_int8.install(model, threshold=None)


def smoothquant(model: nn.Module, prompts: Prompts, alpha: float = 0.5) -> nn.Module:
    """Smooth the model for prompts (token ids) and put its linear layers into W8A8, in place. Returns the model."""
    return w8a8(smooth(model, observe(model, prompts, InputSizes), alpha))


@torch.no_grad()
def alpha_sweep(
    model: nn.Module, prompts: Prompts, texts: Prompts, alphas: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)
) -> dict[float, float]:
    """By alpha, |logits - logits'|^2 / |logits|^2 of a smoothed W8A8 copy over `texts` (token ids); the model stays."""
    if not texts:
        raise CourseError("A sweep needs texts to compare logits on: give the token ids of one at least.")
    sizes, errors = observe(model, prompts, InputSizes), {}
    for alpha in alphas:
        eight, changed, size = w8a8(smooth(copy.deepcopy(model), sizes, alpha)), 0.0, 0.0
        for ids in texts:
            row = torch.tensor([list(ids)], device=model.device)
            there, here = model(row).logits.float(), eight(row).logits.float()
            changed, size = changed + (here - there).square().sum().item(), size + there.square().sum().item()
        errors[alpha] = changed / size
    return errors
