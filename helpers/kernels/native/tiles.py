"""Weights in the order in which the C++ reads them (products.h), in large pages of memory; products with them."""

from __future__ import annotations

import mmap
from typing import NamedTuple

import torch
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.kernels.native import library

LANES, ROWS = 16, 32  # as in products.h
DTYPES = {torch.float32: 1, torch.bfloat16: 2}  # numbers in a lane


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


def most_bytes(weight: torch.Tensor) -> int:
    """Room for a weight's tiles, whatever is filled up."""
    rows, columns = weight.shape
    return (rows + 2 * ROWS) * (columns + LANES) * weight.element_size()


def tiles(weight: torch.Tensor, room: HugePages | None = None) -> torch.Tensor:
    """A weight (rows, in) as (tiles, units, ROWS, numbers in a unit), filled up with rows of zeros; in room of its own
    by default."""
    numbers = DTYPES[weight.dtype]
    filled = F.pad(weight.detach(), (0, 0, 0, -len(weight) % ROWS))
    ordered = filled.view(-1, ROWS, weight.shape[1] // numbers, numbers).transpose(1, 2)
    return (room or HugePages(most_bytes(weight))).put(ordered)


class Tiles(NamedTuple):
    """A weight (rows, in) in tiles."""

    rows: int
    tensor: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor) -> Tiles:
        """CourseError where this machine has no compiler; RuntimeError for a weight that has no tiles."""
        if not weight.is_cpu or weight.dtype not in DTYPES or weight.shape[1] % DTYPES[weight.dtype]:
            raise RuntimeError("Only float32 and bfloat16 on a CPU have tiles, the latter in pairs.")
        if reason := library.why_not():
            raise CourseError(f"Products in C++ can't be had: {reason}.")
        return cls(len(weight), tiles(weight))


def product(x: torch.Tensor, weight: Tiles) -> torch.Tensor:
    """W x for x (n, in): (n, rows), all of the weight's dtype."""
    _, units, _, numbers = weight.tensor.shape
    if x.dtype != weight.tensor.dtype or x.shape[1:] != (units * numbers,):
        raise RuntimeError(f"{tuple(x.shape)} of {x.dtype} don't fit tiles of {units * numbers} numbers in.")
    x, y = x.contiguous(), x.new_empty(len(x), weight.rows)
    linear = getattr(library.library(), f"linear_{str(x.dtype).removeprefix('torch.')}")
    sizes = x.shape[1], len(x)
    linear(weight.tensor.data_ptr(), weight.rows, x.data_ptr(), *sizes, y.data_ptr(), torch.get_num_threads())
    return y
