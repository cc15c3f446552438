"""Which token sees which, for everything that a step may read: chains and trees, of one sequence or of many, with a
sliding window or without.

A sequence's tokens lie in the cache in the order in which they were read, so a token of index i there sees those before
it - except that a guess of a tree does not see guesses that are not its ancestors. A step's tokens are set flush right:
shorter feeds are filled up on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch.nn import functional as F

from helpers.decoding.feed import Feed

SMALL = 160  # tokens: masks of a step's own tokens are kept up to that size


def additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask as every attention takes it: 0 where a token is seen, the dtype's least number elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def own_mask(num_certain: int, parents: Sequence[int]) -> torch.Tensor:
    """(n, n) of a step's own tokens, True where a token sees another: certain ones all before them and themselves,
    guesses the certain ones, their ancestors and themselves."""
    n = num_certain + len(parents)
    seen = torch.ones(n, n, dtype=torch.bool).tril()
    last = num_certain - 1
    for i, parent in enumerate(parents, num_certain):
        seen[i] = seen[num_certain + parent if parent >= 0 else last]
        seen[i, i] = True
    return seen


def step_mask(feeds: Sequence[Feed], starts: Sequence[int], window: int | None = None) -> torch.Tensor:
    """(batch_size, 1, n, length) for n the most tokens that a feed has and `length` the most that the cache holds after
    the step, True where a token sees another. `starts` are the tokens held before, `window` a sliding window's size."""
    n, length = max(map(len, feeds)), max(start + len(feed) for start, feed in zip(starts, feeds))
    first = torch.tensor([start + len(feed) - n for start, feed in zip(starts, feeds)])[:, None]
    index = (first + torch.arange(n)).clamp(min=0)  # of each token in the cache; what fills up sees the first token
    keys = torch.arange(length)
    seen = keys <= index[:, :, None]
    for row, (feed, start) in enumerate(zip(feeds, starts)):
        if feed.parents:
            seen[row, n - len(feed) :, start : start + len(feed)] = own_mask(feed.num_certain, feed.parents)
    if window:
        position = keys.expand(len(feeds), length).clone()  # of what is held; a tree's differ from its indices
        for row, (feed, start) in enumerate(zip(feeds, starts)):
            position[row, start : start + len(feed)] = start + torch.tensor(list(feed.position_offsets))
        seen &= position.gather(1, index)[:, :, None] - position[:, None] < window
    return seen[:, None]


def step_bias(
    feeds: Sequence[Feed], starts: Sequence[int], window: int | None, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """`step_mask` as an additive one; that of a lone small feed takes one operation, since its own part is kept."""
    if len(feeds) == 1 and not window and len(feeds[0].tokens) <= SMALL:
        own = _own_bias(feeds[0].num_certain, tuple(feeds[0].parents), dtype, device)
        return F.pad(own, (starts[0], 0))
    return additive(step_mask(feeds, starts, window), dtype).to(device)


@lru_cache(maxsize=1024)  # a tree's shape comes again and again
def _own_bias(num_certain: int, parents: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):  # the next step may be one that trains
        return additive(own_mask(num_certain, parents)[None, None], dtype).to(device)
