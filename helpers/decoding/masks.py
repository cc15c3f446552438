"""Which token sees which: trees of guesses, and sequences of different lengths in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch.nn import functional as F


def additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask as every attention takes it: 0 where a token is seen, the dtype's least number elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def depths(parents: Sequence[int]) -> list[int]:
    """How far each guess of a tree lies after the certain token, from 1."""
    found: list[int] = []
    for parent in parents:
        found.append(1 if parent < 0 else found[parent] + 1)
    return found


@lru_cache(maxsize=4096)  # a tree's shape comes again and again
def _relatives(parents: tuple[int, ...]) -> torch.Tensor:
    """(n, n) of a step's own tokens: each sees itself, its ancestors and the certain token, which comes first."""
    with torch.inference_mode(False):  # the next step may be one that trains
        sees = torch.eye(len(parents) + 1, dtype=torch.bool)
        for i, parent in enumerate(parents, 1):
            sees[i] |= sees[parent + 1]
    return sees


def tree_mask(parents: Sequence[int], before: int, window: int | None = None) -> torch.Tensor:
    """(1, 1, n, before + n) for n = 1 + guesses, True where a token sees another: each sees the past, the certain
    token, its ancestors and itself; with a sliding `window`, none that lies that far back."""
    mask = F.pad(_relatives(tuple(parents)), (before, 0), value=True)
    if window:
        at = torch.tensor([before, *(before + d for d in depths(parents))])
        mask &= at[:, None] - torch.cat([torch.arange(before), at]) < window
    return mask[None, None]


@lru_cache(maxsize=4096)
def _own_bias(parents: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):
        return additive(_relatives(parents), dtype).to(device)


def tree_bias(parents: Sequence[int], before: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """`tree_mask` without a window as an additive one, in a single operation: the tree's own part is kept."""
    return F.pad(_own_bias(tuple(parents), dtype, device), (before, 0))[None, None]


def rows_mask(lengths: Sequence[int], n: int, window: int | None = None) -> torch.Tensor:
    """(rows, 1, n, longest + n) for rows that hold `lengths` tokens and read n more, True where a token sees another:
    each sees its own row up to itself, never what a longer row has beside it."""
    at = torch.tensor(lengths)[:, None, None] + torch.arange(n)[:, None]  # (rows, n, 1): where each new token goes
    place = torch.arange(max(lengths) + n)
    mask = place <= at
    if window:
        mask &= at - place < window
    return mask[:, None]
