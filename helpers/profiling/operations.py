"""How many operations a step starts: each costs its call, however small its tensors are (notebook 00c)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.kv_cache import KVCache

VIEWS = frozenset(
    "view transpose slice select expand permute t unsqueeze squeeze alias detach split split_with_sizes as_strided "
    "unsafe_view reshape_alias chunk".split()
)


class _Counting(TorchDispatchMode):
    """Counts what reaches PyTorch's kernels, by name."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__.strip("_")] += 1
        return func(*args, **(kwargs or {}))


def operations_of(call: Callable[[], object]) -> Counter[str]:
    """The operations that a call starts, by name; views, which move no number, are left out."""
    with _Counting() as counting:
        call()
    return Counter({name: n for name, n in counting.counts.items() if name not in VIEWS})


@torch.inference_mode()
def step_operations(model, context: int = 16) -> Counter[str]:
    """The operations of a step that reads one token after `context` tokens."""
    forward, cache = Forward(model), KVCache.for_model(model, context + 2)
    forward([Feed(0, [3] * context)], cache)
    return operations_of(lambda: forward([Feed(0, [3])], cache))
