"""Products with a sparse weight against the same one dense: where zeros become speed, if anywhere (notebook 04).

A dense kernel multiplies zeros as it multiplies anything. A sparse one (CSR) leaves them out, but reads where each
number stands, and jumps: it gains only where few are left. 2:4 is as regular as hardware wants it: the sparse units of
NVIDIA's GPUs, from Ampere on, multiply it in half the operations (Mishra et al. 2021).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.kernels import packed_linear
from helpers.measuring.timing import take_turns
from helpers.weights.pruning.sparsity import keep_two_of_four

Seconds = dict[tuple[str, int], list[float]]  # by (way, tokens): one a round


def csr_seconds(
    size: int, sparsities: Sequence[float], num_tokens: Sequence[int], rounds: int, device: str = "cpu", turns: int = 0
) -> Seconds:
    """Products of a float32 weight (size, size): dense by the fastest kernel here ("dense"; packed_linear.install's
    `turns`), and in CSR with each share of its numbers gone ("0.9", say).

    Raises:
        CourseError: torch has no sparse product here.
    """
    weight = torch.randn(size, size, device=device)
    dense = nn.Linear(size, size, bias=False, device=device).requires_grad_(False)
    dense.weight.copy_(weight)
    ways = {"dense": packed_linear.install(nn.Sequential(dense), turns)}
    for sparsity in sparsities:
        ways[f"{sparsity:g}"] = partial(_times, _csr(weight * (torch.rand_like(weight) >= sparsity)))
    return _in_turns(ways, size, num_tokens, rounds, weight)


def two_of_four_seconds(
    size: int, num_tokens: Sequence[int], rounds: int, dtype: torch.dtype = torch.float16, device: str = "cuda"
) -> Seconds:
    """Products of a weight (size, size) that is 2:4, by a dense kernel ("dense") and by the sparse units ("2:4").

    Raises:
        CourseError: the device has no sparse units, or torch no kernel for them.
    """
    if reason := why_no_sparse_units(device):
        raise CourseError(f"{reason} Leave 2:4 kernels out.")
    weight = torch.randn(size, size, device=device, dtype=dtype)
    weight *= keep_two_of_four(weight.abs())
    with warnings.catch_warnings(action="ignore"):  # torch tells that the format may change
        half = torch.sparse.to_sparse_semi_structured(weight)
        ways = {"dense": partial(_linear, weight), "2:4": partial(_linear, half)}
        return _in_turns(ways, size, num_tokens, rounds, weight)


def why_no_sparse_units(device: torch.device | str) -> str:
    """A sentence that says why 2:4 can't be multiplied faster on this device; empty where it can."""
    device = torch.device(device)
    if device.type != "cuda":
        return "2:4 needs the sparse units of an NVIDIA GPU (Ampere or newer); this device is a CPU."
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "2:4 needs an NVIDIA GPU of Ampere or newer; this one is older."
    return ""


def _csr(weight: Tensor) -> Tensor:
    with warnings.catch_warnings(action="ignore"):  # torch tells that the format may change
        return weight.to_sparse_csr()


def _times(weight: Tensor, x: Tensor) -> Tensor:
    """x (n, in) and a sparse weight (out, in) give (out, n)."""
    return weight @ x.T


def _linear(weight: Tensor, x: Tensor) -> Tensor:
    return F.linear(x, weight)


@torch.inference_mode()
def _in_turns(ways: Mapping[str, object], size: int, num_tokens: Sequence[int], rounds: int, like: Tensor) -> Seconds:
    inputs = {n: torch.randn(n, size, device=like.device, dtype=like.dtype) for n in num_tokens}
    arms = {(name, n): partial(way, inputs[n]) for n in num_tokens for name, way in ways.items()}
    try:
        # In the same order each round: none follows itself, with its weight still in the cache.
        return take_turns(arms, rounds, warmup=2, device=like.device, reverse=False)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0][:100]
        raise CourseError(f"torch can't multiply sparse weights here ({reason}): leave them out.") from None
