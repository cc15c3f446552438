"""What this machine can do: bytes a second, operations a second, and one linear layer of a model (notebook 00)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from statistics import median

import torch

from helpers.measuring.timing import seconds_of, synchronize


def bandwidth(megabytes: int = 512, repeats: int = 15, device: str = "cpu") -> float:
    """Bytes per second at which all threads together read memory in order (a sum over far more than any cache)."""
    data = torch.ones(megabytes * 2**20 // 4, device=device)
    return data.nbytes / seconds_of(lambda: data.sum(), repeats=repeats, device=device)


def matmul_rate(dtype: torch.dtype = torch.float32, size: int | None = None, repeats: int = 15,
                device: str = "cpu") -> float:  # fmt: skip
    """Floating-point operations per second of one large matrix product (2 x size^3 of them)."""
    size = size or (1024 if torch.device(device).type == "cpu" else 8192)  # long enough to hide the launch
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b, repeats=repeats, device=device)


@torch.inference_mode()
def layer_seconds(arms: Mapping[str, Sequence[torch.nn.Module]], rows: Sequence[int],
                  turns: int = 7) -> dict[str, dict[int, float]]:  # fmt: skip
    """Seconds of one linear layer of each arm for so many rows of input, the median of `turns`; the arms take turns.

    An arm's layers are alike, and together larger than any cache: called one after the other, each weight comes from
    memory, as it does in a model's step.
    """
    found: dict[str, dict[int, list[float]]] = {name: {n: [] for n in rows} for name in arms}
    order = list(arms)
    for turn in range(turns + 1):
        for n, name in itertools.product(rows, order):
            weight = arms[name][0].weight
            x = torch.randn(n, weight.shape[1], device=weight.device).to(weight.dtype)
            synchronize(weight.device)
            began = time.perf_counter()
            for layer in arms[name]:
                layer(x)
            synchronize(weight.device)
            if turn >= 1:
                found[name][n].append((time.perf_counter() - began) / len(arms[name]))
        order.reverse()
    return {name: {n: median(seconds) for n, seconds in by_rows.items()} for name, by_rows in found.items()}
