"""Which attention heads a rank computes, and which keys and values it needs for them (notebook 06).

A rank takes whole heads: a head's softmax needs all of its numbers. Where several query heads share a key-value head
(grouped-query attention), two ranks may need the same one: both keep it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from helpers.errors import CourseError


@dataclass(frozen=True)
class HeadShard:
    """A rank's query heads, the key-value heads that these read, and for each head the place of its own among them."""

    heads: range
    kv_heads: range
    kv_of_head: list[int]

    @property
    def even(self) -> bool:
        """Whether all of the rank's key-value heads are read by equally many of its heads."""
        return len({self.kv_of_head.count(place) for place in range(len(self.kv_heads))}) == 1


def keys_of(heads: Sequence[int], group: int) -> tuple[list[int], list[int]]:
    """The key-value heads that these neighbouring heads read, `group` heads each, in
    order; and for each head the place of its own among them."""
    read = [head // group for head in heads]
    kept = sorted(set(read))
    return kept, [kept.index(each) for each in read]


def split_evenly(count: int, parts: int) -> list[range]:
    """`count` things in a row in `parts` pieces, the first ones one larger where it doesn't
    come out even."""
    small, larger = divmod(count, parts)
    starts = [part * small + min(part, larger) for part in range(parts + 1)]
    return [range(*ends) for ends in itertools.pairwise(starts)]


def shard_heads(heads: int, kv_heads: int, ranks: int) -> list[HeadShard]:
    """Each rank's heads, as evenly as they go, and the key-value heads that they read."""
    if ranks > heads:
        raise CourseError(f"{heads} heads can't be shared out among {ranks} ranks: take {heads} ranks at most.")
    shards = []
    for mine in split_evenly(heads, ranks):
        kept, places = keys_of(mine, heads // kv_heads)
        shards.append(HeadShard(mine, range(kept[0], kept[-1] + 1), places))
    return shards
