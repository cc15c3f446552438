"""Collectives and their bytes, counted where they are called: by our own code, DTensor or FSDP alike (notebook 06)."""

from __future__ import annotations

from collections import Counter

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NAMESPACES = ("c10d", "_c10d_functional")
KINDS = {  # of PyTorch's operations, beginning with these words
    "allreduce": "all_reduce",
    "all_reduce": "all_reduce",
    "allgather": "all_gather",
    "_allgather": "all_gather",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "all_to_all": "all_to_all",
    "broadcast": "broadcast",
}


class Counted(TorchDispatchMode):
    """Inside it every collective is counted: `calls` and `bytes` by its kind.

    Bytes are those of the whole tensor that all ranks together reduce or gather: what an all-reduce takes, what an
    all-gather gives, what a reduce-scatter takes. How much of it a rank sends depends on how many there are (06b).
    """

    def __init__(self):
        super().__init__()
        self.calls, self.bytes = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(each is DTensor for each in types):
            return NotImplemented  # what it does with its parts comes here again
        result = func(*args, **(kwargs or {}))
        if func.namespace in NAMESPACES and (kind := _kind_of(func)):
            self.calls[kind] += 1
            self.bytes[kind] += max(_nbytes(args), _nbytes(result))
        return result

    @property
    def total(self) -> int:
        """Bytes of all kinds."""
        return sum(self.bytes.values())


def _kind_of(func) -> str | None:
    name = func.overloadpacket.__name__
    return next((kind for begin, kind in KINDS.items() if name.startswith(begin)), None)


def _nbytes(tensors) -> int:
    """Of the largest group of tensors: an operation's inputs and its outputs may stand side by side."""
    groups = tensors if isinstance(tensors, (tuple, list)) else [tensors]
    sizes = [sum(t.nbytes for t in tree_leaves(group) if isinstance(t, torch.Tensor)) for group in groups]
    return max(sizes, default=0)
