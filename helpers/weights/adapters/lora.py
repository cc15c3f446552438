"""LoRA from scratch: train a low-rank change of each weight matrix, 1 % of the numbers, and leave the matrix alone.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021 (notebook 03). y = W x + (alpha / rank) B A x,
with A (rank, in) random and B (out, rank) zero, so that training begins with the model as it is. Several adapters can
share one base, each sequence of a batch with its own (Chen et al., "Punica", 2023). Adapters are kept as PEFT keeps
them, so that either side reads the other's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from helpers.errors import CourseError

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
EVERYWHERE = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


class LoraLinear(nn.Module):
    """A frozen linear layer and, by name, the low-rank changes that can be added to it.

    `active` is the adapter of the whole batch, or a list with one for each of its sequences; None is the base alone.
    """

    def __init__(self, linear: nn.Module):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.a, self.b, self.scaling = nn.ParameterDict(), nn.ParameterDict(), {}
        self.active: str | Sequence[str | None] | None = None

    def add(self, name: str, rank: int, alpha: float) -> None:
        """A new adapter that changes nothing yet."""
        like = dict(device=self.linear.weight.device, dtype=torch.float32)
        self.a[name] = nn.Parameter(torch.empty(rank, self.in_features, **like))
        self.b[name] = nn.Parameter(torch.zeros(self.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.a[name], a=math.sqrt(5))
        self.scaling[name] = alpha / rank

    def change(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """(alpha / rank) B A x, in the adapter's precision; x is (..., in)."""
        low = x.to(self.a[name].dtype) @ self.a[name].T
        return self.scaling[name] * (low @ self.b[name].T)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        if self.active is None:
            return y
        if isinstance(self.active, str):
            if self.active not in self.a:
                return y
            return y + self.change(self.active, x).to(y.dtype)
        if len(self.active) != len(x):
            counts = f"{len(self.active)} adapters for a batch of {len(x)}"
            raise CourseError(f"There are {counts}: name one for each sequence.")
        change = torch.zeros_like(y)
        for name in {name for name in self.active if name in self.a}:
            chosen = [i for i, adapter in enumerate(self.active) if adapter == name]
            change[chosen] = self.change(name, x[chosen]).to(y.dtype)
        return y + change

    def merged(self, name: str) -> torch.Tensor:
        """W + (alpha / rank) B A: one matrix again, (out, in), in the weight's dtype."""
        weight = self.linear.weight
        if weight.shape != (self.out_features, self.in_features):
            raise CourseError("A quantized weight can't take in an adapter: merge into the unquantized base.")
        return merged_weight(weight, self.a[name], self.b[name], self.scaling[name])


def merged_weight(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    """W + scaling x B A for W (out, in), A (rank, in), B (out, rank): added in float32, returned in W's dtype."""
    return (weight.float() + scaling * b.float() @ a.float()).to(weight.dtype)


def lora_parameters(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    """How many numbers adapters of this rank have beside matrices of these shapes (out, in)."""
    return sum(rank * (out + into) for out, into in shapes)


def layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The model's adapted layers by name."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))


def install(
    model: nn.Module,
    adapter: str = "default",
    *,
    rank: int = 16,
    alpha: float = 32,
    targets: Sequence[str] = EVERYWHERE,
) -> nn.Module:
    """Freeze the model and add an adapter to the linear layers whose last name is in `targets`, in place.

    A second call with another name adds a second adapter. The new one is active.
    """
    if rank < 1:
        raise CourseError("An adapter needs a rank of at least 1.")
    names = [name for name, _ in model.named_modules() if name.split(".")[-1] in targets]
    if not names:
        raise CourseError(f"The model has no layers called {', '.join(targets)}: name its own in `targets`.")
    model.requires_grad_(False)
    for name in names:
        module = model.get_submodule(name)
        if not isinstance(module, LoraLinear):
            module = LoraLinear(module)
            model.set_submodule(name, module)
        module.add(adapter, rank, alpha)
    for _, layer in layers(model):
        layer.a.requires_grad_(False), layer.b.requires_grad_(False)
        if adapter in layer.a:
            layer.a[adapter].requires_grad_(True), layer.b[adapter].requires_grad_(True)
    return use(model, adapter)


def use(model: nn.Module, adapter: str | Sequence[str | None] | None) -> nn.Module:
    """Choose the adapter of the whole batch, or one for each of its sequences, or none (None)."""
    known = {name for _, layer in layers(model) for name in layer.a}
    wanted = {adapter} if isinstance(adapter, str) else {name for name in adapter or () if name is not None}
    unknown = sorted(wanted - known)
    if unknown:
        raise CourseError(f"There is no adapter {', '.join(unknown)}; there are {', '.join(sorted(known)) or 'none'}.")
    for _, layer in layers(model):
        layer.active = adapter
    return model


@torch.no_grad()
def merge(model: nn.Module, adapter: str = "default") -> nn.Module:
    """Add the adapter to the weights, in place, and take the adapted layers out: a plain model, as fast as the base."""
    for name, layer in list(layers(model)):
        if adapter in layer.a:
            layer.linear.weight.copy_(layer.merged(adapter))
        model.set_submodule(name, layer.linear)
    return model


def trainable_share(model: nn.Module) -> float:
    """The share of all numbers in the model that training changes."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in counts if trained) / sum(n for n, _ in counts)
