"""Run a model of half precision in float32, without a float32 copy of it: each operation casts what it reads.

It takes the room of one weight in float32 at a time. Casts to float32 are exact, so that the model is the same
function, without the rounding after each operation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

HALF = (torch.bfloat16, torch.float16)


class InFloat32(TorchDispatchMode):
    """Within it, operations on half precision read and make float32; a tensor that one writes into keeps its dtype."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not operation.is_view:  # a view of a copy would not be one
            arguments = operation._schema.arguments
            written = {a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write}
            args = [value if a.name in written else _exact(value) for a, value in zip(arguments, args)]
            kwargs = {name: value if name in written else _exact(value) for name, value in kwargs.items()}
        return operation(*args, **kwargs)


def _exact(argument: Any) -> Any:
    """An argument of an operation, with float32 wherever it has half precision: tensors and dtypes."""

    def exact(value):
        if isinstance(value, torch.Tensor) and value.dtype in HALF:
            return value.float()
        return torch.float32 if isinstance(value, torch.dtype) and value in HALF else value

    return tree_map(exact, argument)
