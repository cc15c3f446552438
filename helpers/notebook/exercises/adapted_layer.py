"""A small linear layer with two adapters, to try a forward pass on (exercise 03.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from helpers.weights.adapters.lora import LoraLinear

ADAPTERS = {"sql": (2, 4.0), "prose": (3, 1.5)}  # rank and alpha: they are scaled by 2 and by 0.5


class AdaptedLayer(LoraLinear):
    """From 6 numbers to 5, `dtype` being that of W; both adapters have learned something."""

    def __init__(self, active: str | Sequence[str | None] | None, dtype: torch.dtype = torch.float32):
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(7)
            super().__init__(nn.Linear(6, 5, bias=False, dtype=dtype))
            for name, (rank, alpha) in ADAPTERS.items():
                self.add(name, rank, alpha)
                nn.init.normal_(self.b[name])
        self.active, self.made_from = active, (active, dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdaptedLayer) and self.made_from == other.made_from

    __hash__ = nn.Module.__hash__
