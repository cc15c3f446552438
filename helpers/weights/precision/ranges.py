"""How large a model's numbers get, and how small: activations and gradients recorded while it runs (notebook 01).

What a half-precision format has to hold is not the weights alone. Activations have outliers (Sun et al., "Massive
Activations in Large Language Models", 2024); gradients are small (Micikevicius et al., "Mixed Precision Training",
2018).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from helpers.errors import CourseError
from helpers.weights.precision.formats import FloatFormat


@dataclass
class Recorded:
    """By the module's name: what each linear layer reads and each block passes on; the loss's gradient by them."""

    activations: dict[str, torch.Tensor] = field(default_factory=dict)
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)


@contextmanager
def recording(model: nn.Module) -> Iterator[Recorded]:
    """Keeps the activations of the forward, and the gradients of the backward, that run inside."""
    recorded = Recorded()

    def keep(name: str, x: torch.Tensor) -> None:
        recorded.activations[name] = x.detach()
        if x.requires_grad:
            x.register_hook(lambda grad: recorded.gradients.__setitem__(name, grad.detach()))

    blocks = {id(block) for block in blocks_of(model)}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            hooks.append(module.register_forward_pre_hook(lambda _, given, name=name: keep(f"{name}, in", given[0])))
        elif id(module) in blocks:
            hooks.append(module.register_forward_hook(lambda _, given, out, name=name: keep(name, _first(out))))
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def blocks_of(model: nn.Module) -> Sequence[nn.Module]:
    """The transformer's blocks: the list of as many modules as the configuration has layers."""
    layers = model.config.get_text_config().num_hidden_layers
    return next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == layers)


def _first(out: torch.Tensor | tuple) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


@torch.no_grad()
def with_outliers(model: nn.Module, factor: float) -> nn.Module:
    """A copy that computes the same function with activations `factor` times as large inside its MLPs: what goes in is
    multiplied, what comes out divided. With a power of two not a bit of a float32 result changes."""
    model = copy.deepcopy(model)
    names = ("gate_proj", "up_proj", "down_proj")
    gated = [m for m in model.modules() if all(hasattr(m, name) for name in names)]
    if not gated:
        raise CourseError("This model's MLPs don't multiply what gate_proj and up_proj give: take a Llama or Qwen2.")
    for mlp in gated:
        for number in (mlp.up_proj.weight, mlp.up_proj.bias):
            if number is not None:
                number *= factor
        mlp.down_proj.weight /= factor
    return model


def magnitudes(tensors: Sequence[torch.Tensor], lowest: int = -40, highest: int = 20) -> tuple[list[int], list[float]]:
    """(powers of two from `lowest` to `highest`, the share of all numbers other than 0 that lie there): a number x
    counts for the power p with 2^p <= |x| < 2^(p+1); what lies outside counts for the ends."""
    sizes = torch.cat([t.detach().abs().flatten() for t in tensors])
    powers = (torch.frexp(sizes[sizes > 0])[1] - 1).clamp(lowest, highest).long() - lowest
    counts = torch.bincount(powers, minlength=highest - lowest + 1).double()
    return list(range(lowest, highest + 1)), (counts / counts.sum()).tolist()


def vanishing(tensors: Sequence[torch.Tensor], fmt: FloatFormat, scale: float = 1.0) -> float:
    """The share of the numbers other than 0 that become 0 in the format after they are multiplied by `scale`."""
    sizes = torch.cat([t.detach().abs().flatten() for t in tensors])
    sizes = sizes[sizes > 0]
    return (sizes * scale <= fmt.smallest / 2).double().mean().item()
