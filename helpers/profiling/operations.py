"""How many operations a step starts: each costs its call, however small its tensors are (notebook 00c)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.kv_cache import KVCache


class _Counting(TorchDispatchMode):
    """Counts what reaches PyTorch's kernels, by name."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.counts[func.overloadpacket.__name__.strip("_")] += not _is_view(func, args, result)
        return result


def _is_view(func, args, result) -> bool:
    """Whether what came out lies in the memory of what went in, and nothing was written there: no number moved."""
    results = result if isinstance(result, list | tuple) else [result]
    if func._schema.is_mutable or not all(isinstance(each, torch.Tensor) for each in (*args[:1], *results)):
        return False
    return bool(args) and all(each.untyped_storage()._cdata == args[0].untyped_storage()._cdata for each in results)


def operations_of(call: Callable[[], object]) -> Counter[str]:
    """The operations that a call starts, by name; views, which move no number, are left out."""
    with _Counting() as counting:
        call()
    return +counting.counts


@torch.inference_mode()
def step_operations(model, context: int = 16) -> Counter[str]:
    """The operations of a step that reads one token after `context` tokens."""
    forward, cache = Forward(model), KVCache.for_model(model, context + 2)
    forward([Feed(0, [3] * context)], cache)
    return operations_of(lambda: forward([Feed(0, [3])], cache))
