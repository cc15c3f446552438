"""What zeros save on disk: a sparse weight kept as its numbers and where they stand, in three ways (notebook 04).

A file doesn't get smaller because there are zeros in it: something has to say where the other numbers belong. A bit for
each weight does (as engines store unstructured sparsity); or the column of each number (CSR, the old format of sparse
matrices); or, in 2:4, two bits for each number (what NVIDIA's sparse units read).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.errors import CourseError
from helpers.weights.pruning.sparsity import check_fours

Parts = dict[str, Tensor]


def to_bitmask(weight: Tensor) -> Parts:
    """A bit for each weight of (out, in), and the numbers that aren't 0, row by row."""
    mask = weight != 0
    return {"bits": torch.from_numpy(np.packbits(mask.cpu().numpy())), "values": weight[mask].cpu()}


def from_bitmask(parts: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """The dense weight (out, in) again."""
    mask = np.unpackbits(parts["bits"].numpy(), count=shape[0] * shape[1]).astype(bool)
    weight = parts["values"].new_zeros(shape[0] * shape[1])
    weight[torch.from_numpy(mask)] = parts["values"]
    return weight.view(shape)


def to_csr(weight: Tensor) -> Parts:
    """The column of each number that isn't 0, in 32 bits, and where each row begins (compressed sparse rows)."""
    mask = (weight != 0).cpu()
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    columns = mask.nonzero()[:, 1].to(torch.int32)
    return {"starts": starts.to(torch.int32), "columns": columns, "values": weight.cpu()[mask]}


def from_csr(parts: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """The dense weight (out, in) again."""
    rows = torch.arange(shape[0]).repeat_interleave(parts["starts"].diff())
    weight = parts["values"].new_zeros(shape)
    weight[rows, parts["columns"].long()] = parts["values"]
    return weight


def to_two_of_four(weight: Tensor) -> Parts:
    """Two numbers of each four neighbours, and their places in two bits each: four to a byte.

    Raises:
        CourseError: more than two of some four neighbours aren't 0.
    """
    check_fours(weight.shape[-1])
    fours = weight.cpu().view(-1, 4)
    used = fours != 0
    if used.sum(1).max() > 2:
        raise CourseError("This weight isn't 2:4: more than two of some four neighbours aren't 0; prune it so first.")
    # Where fewer than two are used, zeros fill up.
    where = used.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :2].sort(1).values
    crumbs = torch.nn.functional.pad(where.flatten().to(torch.uint8), (0, -where.numel() % 4)).view(-1, 4)
    packed = crumbs[:, 0] | crumbs[:, 1] << 2 | crumbs[:, 2] << 4 | crumbs[:, 3] << 6
    return {"places": packed, "values": fours.gather(1, where)}


def from_two_of_four(parts: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """The dense weight (out, in) again."""
    packed, values = parts["places"], parts["values"]
    crumbs = torch.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], 1).flatten()[: values.numel()]
    return values.new_zeros(len(values), 4).scatter(1, crumbs.view(-1, 2).long(), values).view(shape)


@dataclass(frozen=True)
class Form:
    """A way to write a sparse weight (out, in), and to read it again."""

    write: Callable[[Tensor], Parts]
    read: Callable[[Mapping[str, Tensor], tuple[int, int]], Tensor]


FORMS = {
    "dense": Form(lambda weight: {"values": weight.cpu()}, lambda parts, shape: parts["values"].view(shape)),
    "a bit for each weight": Form(to_bitmask, from_bitmask),
    "columns (CSR)": Form(to_csr, from_csr),
    "2:4": Form(to_two_of_four, from_two_of_four),
}


def save_weights(weights: Mapping[str, Tensor], form: str, path: Path) -> int:
    """Write weights (out, in) in one of FORMS as a safetensors file; returns its bytes."""
    parts = {
        f"{name}.{part}": tensor.contiguous()
        for name, weight in weights.items()
        for part, tensor in FORMS[form].write(weight.detach()).items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(parts, path)
    return path.stat().st_size


def load_weights(shapes: Mapping[str, tuple[int, int]], form: str, path: Path) -> dict[str, Tensor]:
    """The dense weights again, for their shapes by name."""
    kept: dict[str, Parts] = {name: {} for name in shapes}
    for key, tensor in load_file(path).items():
        name, _, part = key.rpartition(".")
        kept[name][part] = tensor
    return {name: FORMS[form].read(kept[name], shape) for name, shape in shapes.items()}
