"""torchrun's processes: one group for the time of a training, and gradients as if one process had seen everything."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

PATIENCE = timedelta(hours=6)  # the others wait while the first process answers questions


@contextmanager
def process_group() -> Iterator[None]:
    """All processes that torchrun started as one group; a process by itself needs none.

    A process that fails leaves the group as it is: torchrun ends the others.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    yield
    if dist.is_initialized():  # by us, or by the Trainer
        dist.barrier()  # what the first process still writes, the others don't cut off
        dist.destroy_process_group()


def rank() -> int:
    """This process's number: 0 for the first, and for a process by itself."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def first_process_first() -> Iterator[None]:
    """The first process runs the block alone; when it is through, the others run it, and find what it left."""
    if rank():
        dist.barrier()
    yield
    if world_size() > 1 and not rank():
        dist.barrier()


def smallest(count: int, device: str) -> int:
    """The smallest of all processes' counts."""
    if world_size() == 1:
        return count
    counts = torch.tensor(count, device=device)
    dist.all_reduce(counts, dist.ReduceOp.MIN)
    return int(counts)


def average_gradients(parameters: Iterable[nn.Parameter], counts: torch.Tensor) -> None:
    """Turn each process's gradients of its own mean loss into those of the mean over all processes' labels.

    `counts` (groups,) says over how many labels this process's means were taken. Most losses are one mean: (1,). With
    several groups each parameter's first dimension holds the groups one after another, as Medusa's heads do.
    """
    if world_size() == 1:
        return
    total = counts.clone()
    dist.all_reduce(total)
    share = counts / total.clamp(min=1)
    for p in parameters:
        if p.grad is None:  # no label here: nothing to add, but the others wait
            p.grad = torch.zeros_like(p)
        groups = p.grad.unflatten(0, (len(share), -1))
        groups.mul_(share.view(-1, *[1] * p.dim()))
        dist.all_reduce(p.grad)
