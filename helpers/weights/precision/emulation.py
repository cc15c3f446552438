"""A format that the machine can't compute with, emulated: compute in float32, round what is kept (notebook 01).

Weights are rounded once; every module's output is rounded as it leaves, and on the way back so is its gradient. Inside
a module sums stay in float32, as they do in the hardware that has the format. The results are close to the real ones,
not equal bit by bit; the time means nothing, and is never shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class RoundBothWays(torch.autograd.Function):
    """Rounds a tensor to a dtype and back, and its gradient likewise."""

    @staticmethod
    def forward(context, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        context.dtype = dtype
        return x.to(dtype).to(x.dtype)

    @staticmethod
    def backward(context, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad.to(context.dtype).to(grad.dtype), None


@contextmanager
def emulated(model: nn.Module, dtype: torch.dtype) -> Iterator[nn.Module]:
    """The same float32 model, inside as if its weights and activations were in `dtype`; afterwards as it was."""
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    innermost = [m for m in model.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(lambda _, given, out: _round(out, dtype)) for m in innermost]
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(dtype))
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(own[name])


def _round(out: object, dtype: torch.dtype) -> object:
    """Tensors alone: what returns several (the rotary embedding's angles) stays in float32, as in the real models."""
    return RoundBothWays.apply(out, dtype) if torch.is_tensor(out) and out.is_floating_point() else out
