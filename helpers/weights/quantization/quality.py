"""What rounding weights changes in the outputs of layers: the measure that methods minimize (notebook 02).

What it does to the whole model, perplexity and the worst logit error, is in `measuring.quality`; the layers show where
that comes from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from helpers.errors import CourseError
from helpers.weights.quantization.calibration import Prompts, observed_linears


def output_size(matrix: Tensor, hessian: Tensor) -> float:
    """|M X|^2 of a matrix M (out, in) over all inputs, the trace of M H M^T; H (in, in) is their sum of x x^T."""
    matrix = matrix.float()
    return ((matrix @ hessian) * matrix).sum().item()


def output_error(weight: Tensor, rounded: Tensor, hessian: Tensor) -> float:
    """|(Q - W) X|^2 / |W X|^2, the share of a layer's output that rounding W (out, in) to Q changes."""
    return output_size(rounded.float() - weight.float(), hessian) / output_size(weight, hessian)


@torch.no_grad()
def layer_errors(model: nn.Module, reference: nn.Module, prompts: Prompts) -> dict[str, float]:
    """By the name of each linear layer of the blocks, |y - y'|^2 / |y|^2 over the prompts: y is the reference's output
    and y' what the model's layer makes of the same input, so that the errors of earlier layers don't count.

    Raises:
        CourseError: there is no prompt; the model has no layer of that name, or scales moved into its norms (AWQ,
            SmoothQuant), so that its layers read something else.
    """
    if not prompts:
        raise CourseError("The error of no prompts says nothing: give at least one.")
    _check_norms(model, reference)
    sums: dict[str, list[float]] = {}

    def compare(name: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        error = (layer(x).float() - y.float()).square().sum().item()
        there = sums.setdefault(name, [0.0, 0.0])
        there[0], there[1] = there[0] + error, there[1] + y.float().square().sum().item()

    hooks = []
    for name, linear in observed_linears(reference).items():
        try:
            layer = model.get_submodule(name)
        except AttributeError:
            raise CourseError(
                f"The model has no layer {name}: compare it with the model that it was made of."
            ) from None
        hook = lambda module, given, y, name=name, layer=layer: compare(name, layer, given[0], y)  # noqa: E731
        hooks.append(linear.register_forward_hook(hook))
    try:
        for ids in prompts:
            reference.base_model(input_ids=torch.tensor([list(ids)], device=reference.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: error / size if size else 0.0 for name, (error, size) in sums.items()}


def _check_norms(model: nn.Module, reference: nn.Module) -> None:
    norms = {name: p for name, p in model.named_parameters() if p.ndim == 1 and name.endswith("weight")}
    for name, there in reference.named_parameters():
        if name in norms and not torch.equal(norms[name].float(), there.float()):
            raise CourseError(f"Scales moved into {name}: take output_error of each weight, scaled back, instead.")
