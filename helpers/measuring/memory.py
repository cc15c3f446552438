"""How much memory a process has had, what weights take, and room in large pages."""

from __future__ import annotations

import mmap
import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


class HugePages:
    """Room that the kernel may map in pages of 2 MiB: with 4 KiB, addresses are looked up too often for the memory's
    full speed."""

    def __init__(self, num_bytes: int):
        room = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared has small pages
        if hasattr(mmap, "MADV_HUGEPAGE"):
            room.madvise(mmap.MADV_HUGEPAGE)
        self.free = torch.frombuffer(room, dtype=torch.uint8)

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """A contiguous copy, after what was put before."""
        num_bytes = tensor.numel() * tensor.element_size()
        here, self.free = self.free[:num_bytes], self.free[num_bytes + -num_bytes % 64 :]
        return here.view(tensor.dtype).view(tensor.shape).copy_(tensor)


def peak_memory_gib() -> float:
    """The most memory that this process has had in RAM so far, in GiB.

    On Linux getrusage's peak begins at that of the process that started this one, so the kernel's own count is read.
    """
    for line in STATUS.read_text().splitlines() if STATUS.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20  # KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20  # bytes on macOS, KiB on Linux


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all weights, shared ones counted once."""
    return sum(p.nbytes for p in model.parameters())


def peak_memory(device: str = "cpu") -> dict[str, float]:
    """The most memory held so far, in GiB: by this process, and by torch on a GPU."""
    peak = {"process": peak_memory_gib()}
    if torch.device(device).type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device) / 2**30
    return peak
