"""What autocast does: it leaves the weights in float32 and casts them at every call, where they are used (notebook 01).

That is made for training, where the float32 weights are needed (Micikevicius et al. 2018). For inference it keeps more
and does more than a model that was converted once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


def under_autocast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model, its weights shared, with every forward under autocast: around each call, as it is mostly used."""
    wrapped = copy.copy(model)
    wrapped.forward = torch.autocast(model.device.type, dtype)(model.forward)
    return wrapped


class _Casts(TorchDispatchMode):
    """Counts the bytes that casts of large tensors make."""

    def __init__(self, min_numbers: int):
        super().__init__()
        self.min_numbers, self.bytes = min_numbers, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].dtype != out.dtype and out.numel() >= self.min_numbers:
            self.bytes += out.nbytes
        return out


@torch.no_grad()  # in inference mode torch tells of no casts
def cast_bytes(call: Callable[[], object], min_numbers: int = 10_000) -> int:
    """Bytes that a call makes by casting tensors of at least `min_numbers` numbers to another dtype."""
    with _Casts(min_numbers) as casts:
        call()
    return casts.bytes
