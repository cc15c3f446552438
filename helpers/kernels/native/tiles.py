"""Weights in the order in which the C++ reads them (products.h), in large pages of memory; products with them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.kernels.native import library
from helpers.measuring.memory import HugePages

LANES, ROWS = 16, 32  # as in vectors.h
DTYPES = {torch.float32: 1, torch.bfloat16: 2}  # numbers in a lane


class Weight(ctypes.Structure):
    """As in codes.h."""

    _fields_ = [
        ("tiles", ctypes.c_void_p),
        ("levels", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("kind", "group", "scale_bytes")),
    ]


NUMBERS, CODES_8, CODES_4, BYTES = range(4)  # as in codes.h


@dataclass(frozen=True)
class Codes:
    """A weight (rows, in) as codes times scales (rows, groups), bfloat16 or float32. Codes (rows, in) are int8 from
    -127 to 127, or uint8 from 0 to 15, places in `levels` (16,) bfloat16. With `for_bytes` what they are multiplied
    with is rounded to eight bits, too, a scale a token (W8A8): then a row has one scale, float32.

    Raises:
        CourseError: a group has an odd number of columns, which come in pairs; a code that is none; columns that bytes
            don't come in.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    levels: torch.Tensor | None = None
    for_bytes: bool = False

    def __post_init__(self):
        columns, groups = self.codes.shape[1], self.scales.shape[1]
        if columns % (2 * groups):
            raise CourseError(f"Groups of {columns / groups:g} columns can't be read in pairs: take 32 or 64.")
        least, most = (-127, 127) if self.levels is None else (0, 15)
        if int(self.codes.min()) < least or int(self.codes.max()) > most:
            raise CourseError(f"Codes lie between {least} and {most} here: quantize the weight again.")
        one_scale = groups == 1 and self.scales.dtype == torch.float32 and self.levels is None
        if self.for_bytes and (columns % (2 * LANES) or not one_scale):
            raise CourseError(
                f"Inputs of eight bits come in {2 * LANES}s, for rows of eight-bit codes with one float32 scale: leave "
                "the inputs of this layer as they are."
            )

    def with_rows(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Codes:
        """The same change of the rows of codes and scales."""
        return replace(self, codes=change(self.codes), scales=change(self.scales))

    @classmethod
    def beside(cls, parts: Sequence[Codes]) -> Codes:
        """The rows of all parts, one after the other; CourseError where they have unlike grids."""
        first = parts[0]
        alike = all(
            part.codes.dtype == first.codes.dtype
            and part.scales.dtype == first.scales.dtype
            and part.scales.shape[1] == first.scales.shape[1]
            and part.for_bytes == first.for_bytes
            and (part.levels is first.levels or torch.equal(part.levels, first.levels))
            for part in parts
        )
        if not alike:
            raise CourseError("Layers that read the same input are joined: quantize them with the same settings.")
        codes, scales = (torch.cat([getattr(part, name) for part in parts]) for name in ("codes", "scales"))
        return replace(first, codes=codes, scales=scales)


def most_bytes(weight: torch.Tensor | Codes) -> int:
    """Room for a weight's tiles, whatever is filled up."""
    codes = weight.codes if isinstance(weight, Codes) else weight
    of_row = (codes.shape[1] + LANES) * codes.element_size()
    if isinstance(weight, Codes):
        of_row += weight.scales.shape[1] * weight.scales.element_size() + 4  # and what bytes are moved by
    return (len(codes) + 2 * ROWS) * of_row


def tiles(weight: torch.Tensor | Codes, room: HugePages | None = None) -> torch.Tensor:
    """A weight (rows, in) in tiles, filled up with rows of zeros; in room of its own by default. Numbers: (tiles,
    units, ROWS, numbers in a unit); codes: (tiles, groups, bytes of the group's codes and scales)."""
    if isinstance(weight, Codes):
        ordered = _tiled_bytes(weight) if weight.for_bytes else _tiled_codes(weight)
    else:
        ordered = _tiled_numbers(weight.detach())
    return (room or HugePages(most_bytes(weight))).put(ordered)


def _whole_tiles(of_rows: torch.Tensor) -> torch.Tensor:
    return F.pad(of_rows, (0, 0, 0, -len(of_rows) % ROWS))


def _tiled_numbers(weight: torch.Tensor) -> torch.Tensor:
    numbers = DTYPES[weight.dtype]
    return _whole_tiles(weight).reshape(-1, ROWS, weight.shape[1] // numbers, numbers).transpose(1, 2)


def _tiled_codes(weight: Codes) -> torch.Tensor:
    filled, groups = weight.with_rows(_whole_tiles), weight.scales.shape[1]
    units = filled.codes.shape[1] // 2
    halves = filled.codes.reshape(-1, 2, LANES, units, 2).permute(0, 3, 1, 2, 4).reshape(-1, units, 2, 2 * LANES)
    if weight.levels is None:  # a sign bit and a magnitude; 8 of the upper half, 8 of the lower one, and so on
        signs = (halves < 0).to(torch.uint8) << 7
        halves = signs | halves.to(torch.int16).abs().to(torch.uint8)
        of_units = halves.view(-1, units, 2, 4, 8).transpose(2, 3)
    else:
        of_units = halves[:, :, 0] | halves[:, :, 1] << 4
    codes = of_units.reshape(len(halves), groups, -1)
    scales = filled.scales.reshape(-1, ROWS, groups).transpose(1, 2).contiguous().view(torch.uint8)
    return torch.cat([codes, scales], 2)


def _tiled_bytes(weight: Codes) -> torch.Tensor:
    filled = weight.with_rows(_whole_tiles)
    num_tiles, units = len(filled.codes) // ROWS, filled.codes.shape[1] // 4
    codes = filled.codes.reshape(num_tiles, ROWS, units, 4).transpose(1, 2).reshape(num_tiles, 1, -1)
    moved_by = 128 * filled.codes.sum(1, dtype=torch.int32)  # inputs are codes plus 128
    behind = [of_rows.reshape(num_tiles, 1, ROWS).view(torch.uint8) for of_rows in (moved_by, filled.scales.flatten())]
    return torch.cat([codes.view(torch.uint8), *behind], 2)


def described(weight: torch.Tensor | Codes, in_tiles: torch.Tensor) -> Weight:
    """A weight in tiles as the C++ takes it; both tensors must be kept."""
    if not isinstance(weight, Codes):
        return Weight(in_tiles.data_ptr())
    kind = BYTES if weight.for_bytes else CODES_8 if weight.levels is None else CODES_4
    levels = None if weight.levels is None else weight.levels.data_ptr()
    group = weight.codes.shape[1] // (2 * weight.scales.shape[1])
    return Weight(in_tiles.data_ptr(), levels, kind, group, weight.scales.element_size())


class Tiles(NamedTuple):
    """A weight (rows, in) of `dtype` in tiles, for products with x of that dtype."""

    rows: int
    columns: int
    dtype: torch.dtype
    weight: Weight
    kept: tuple[torch.Tensor | None, ...]  # what `weight` points to

    @classmethod
    def of(cls, weight: torch.Tensor | Codes) -> Tiles:
        """CourseError where this machine has no compiler; RuntimeError for a weight that has no tiles."""
        codes = weight.codes if isinstance(weight, Codes) else weight
        dtype = torch.bfloat16 if isinstance(weight, Codes) else weight.dtype
        if not codes.is_cpu or dtype not in DTYPES or codes.shape[1] % DTYPES[dtype]:
            raise RuntimeError("Only float32 and bfloat16 on a CPU have tiles, the latter in pairs.")
        if reason := library.why_not():
            raise CourseError(f"Products in C++ can't be had: {reason}.")
        in_tiles = tiles(weight)
        return cls(*codes.shape, dtype, described(weight, in_tiles), (in_tiles, getattr(weight, "levels", None)))


def product(x: torch.Tensor, weight: Tiles) -> torch.Tensor:
    """W x for x (n, in): (n, rows), all of the weight's dtype."""
    if x.dtype != weight.dtype or x.shape[1:] != (weight.columns,):
        raise RuntimeError(f"{tuple(x.shape)} of {x.dtype} don't fit tiles of {weight.columns} numbers in.")
    x, y = x.contiguous(), x.new_empty(len(x), weight.rows)
    linear, threads = library.function("linear", x.dtype), torch.get_num_threads()
    linear(ctypes.byref(weight.weight), weight.rows, x.data_ptr(), x.shape[1], len(x), y.data_ptr(), threads)
    return y
