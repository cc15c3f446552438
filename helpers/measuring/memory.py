"""How much memory a process has had, and what weights take."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


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
