"""What this machine can do: bytes a second, operations a second, and one linear layer of a model (notebook 00)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

import torch

from helpers.measuring.memory import HugePages
from helpers.measuring.timing import take_turns


class Memory:
    """Far more memory than any cache holds, which all threads together `read` in order. Read it between the rounds of
    what is compared with the bandwidth: a machine's bandwidth drifts with what its neighbours do."""

    def __init__(self, megabytes: int = 512, device: str = "cpu"):
        num_bytes, self.device = megabytes * 2**20, device
        on_cpu = torch.device(device).type == "cpu"
        room = HugePages(num_bytes).free if on_cpu else torch.empty(num_bytes, dtype=torch.uint8, device=device)
        self.numbers = room.view(torch.float32).fill_(1)
        self.numbers.sum()  # the first time is no measurement
        self.seconds: list[float] = []

    def read(self) -> None:
        """Read it once more."""
        self.seconds += take_turns({"": self.numbers.sum}, 1, device=self.device)[""]

    @property
    def bandwidth(self) -> float:
        """Bytes per second, the median of all readings so far."""
        return self.numbers.nbytes / median(self.seconds)


def bandwidth(megabytes: int = 512, repeats: int = 15, device: str = "cpu") -> float:
    """Bytes per second at which memory is read, as of now."""
    memory = Memory(megabytes, device)
    for _ in range(repeats):
        memory.read()
    return memory.bandwidth


@torch.inference_mode()
def matmul_rate(
    dtype: torch.dtype = torch.float32, size: int | None = None, repeats: int = 15, device: str = "cpu"
) -> float:
    """Floating-point operations per second of one large matrix product (2 x size^3 of them), by the library's kernel or
    with a packed weight, whichever is faster."""
    size = size or (1024 if torch.device(device).type == "cpu" else 8192)  # long enough to hide the launch
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _fastest({"plain": lambda: a @ b, **_packed_product(a, b)}, repeats, device)


def _packed_product(x: torch.Tensor, weight: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """The product of x and a weight copied into the blocks that oneDNN reads; empty where there is no such kernel."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        product = partial(torch.ops.mkldnn._linear_pointwise, x, packed, None, "none", [], "")
        product()
    except (AttributeError, NotImplementedError, RuntimeError):  # another device, dtype or build of torch
        return {}
    return {"packed": product}


def _fastest(ways: Mapping[str, Callable[[], object]], repeats: int, device: str) -> float:
    """Seconds of the fastest way, the median of `repeats` each; they take turns."""
    return min(map(median, take_turns(ways, repeats, warmup=2, device=device).values()))


@torch.inference_mode()
def layer_seconds(
    arms: Mapping[str, Sequence[torch.nn.Module]], token_counts: Sequence[int], rounds: int = 7
) -> dict[str, dict[int, float]]:
    """Seconds of one linear layer of each arm for so many tokens, the median of `rounds`; the arms take turns.

    An arm's layers are alike, and together larger than any cache: called one after the other, each weight comes from
    memory, as it does in a model's step.
    """

    def pass_through(layers: Sequence[torch.nn.Module], x: torch.Tensor) -> None:
        for layer in layers:
            layer(x)

    def inputs(weight: torch.Tensor, num_tokens: int) -> torch.Tensor:
        return torch.randn(num_tokens, weight.shape[1], device=weight.device).to(weight.dtype)

    passes = {
        (name, n): partial(pass_through, arms[name], inputs(arms[name][0].weight, n))
        for n, name in itertools.product(token_counts, arms)
    }
    device = next(iter(arms.values()))[0].weight.device
    seconds = take_turns(passes, rounds, warmup=1, device=device)
    return {name: {n: median(seconds[name, n]) / len(arms[name]) for n in token_counts} for name in arms}
