"""The KV cache: what attention has already computed, kept in tensors allocated once and written in place.

It does not concatenate at each step, as DynamicCache does. Each sequence has a row of the tensors for itself, as long
as the longest may become: simple, and fast for one sequence or a few (notebooks/extras/00b_kv_cache).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch

from helpers.decoding.feed import Feed
from helpers.decoding.sequence_cache import CacheFullError, CacheLayer, SequenceCache


def bytes_per_token(layers: int, kv_heads: int, head_dim: int, bytes_per_number: int) -> int:
    """Bytes that one token of one sequence takes in a KV cache: a key and a value in each layer and KV head."""
    return 2 * layers * kv_heads * head_dim * bytes_per_number


class _Places(NamedTuple):
    """Where a step's tokens go: rows of the tensors in the order of the feeds; the same columns `new` of all rows, or
    for each token its (row, column) `index` and where it comes from, its `source` (feed, token); `end` of what is read.
    """

    rows: slice | torch.Tensor
    new: slice | None
    end: int
    index: tuple[torch.Tensor, torch.Tensor] | None = None
    source: tuple[torch.Tensor, torch.Tensor] | None = None


class _Row(CacheLayer):
    """One layer; a block is a sequence's row."""

    def update(self, key_states, value_states, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (batch_size, kv_heads, n, head_dim) where the step has them; returns all that its sequences hold, up to
        the longest one's end."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, new, end, index, source = self.cache.places
        keys, values = self.keys, self.values
        if index is None:
            keys[rows, :, new] = key_states
            values[rows, :, new] = value_states
        else:
            (row, at), (here, token) = index, source
            keys[row, :, at] = key_states[here, :, token]
            values[row, :, at] = value_states[here, :, token]
        return keys[rows, :, :end], values[rows, :, :end]


class KVCache(SequenceCache):
    """Room for `max_sequences` sequences of `capacity` tokens each, in all layers: a block for each of them."""

    def __init__(self, layers: int, capacity: int, max_sequences: int = 1):
        super().__init__(layers, max_sequences, capacity, _Row)
        self.capacity, self.max_sequences = capacity, max_sequences
        self.places: _Places | None = None  # of the step that is being read

    @classmethod
    def for_model(cls, model, capacity: int, max_sequences: int = 1) -> KVCache:
        return cls(model.config.get_text_config().num_hidden_layers, capacity, max_sequences)

    def can_append(self, sequence_id: Hashable, num_tokens: int) -> bool:
        fits = self.lengths.get(sequence_id, 0) + num_tokens <= self.capacity
        return fits and (sequence_id in self.lengths or len(self.lengths) < self.max_sequences)

    def reserve(self, ends: dict[Hashable, int]) -> None:
        new, longest = [each for each in ends if each not in self.blocks], max(ends.values())
        if len(self.blocks) + len(new) > self.max_sequences:
            raise CacheFullError(
                f"The cache is made for {self.max_sequences} sequences and has {len(self.blocks)}, "
                f"{len(new)} more came: free one, or make it larger."
            )
        if longest > self.capacity:
            raise CacheFullError(f"The cache holds {self.capacity} tokens and {longest} were needed: make it larger.")
        for sequence_id in new:
            self.blocks[sequence_id] = [len(self.blocks)]

    def update(self, key_states, value_states, layer_idx: int, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        if layer_idx == 0:
            self.begin_by_itself(*key_states.shape[::2][:2])
            self._start, self.places = None, self._places(self.feeds, self.starts)
        return self.layers[layer_idx].update(key_states, value_states)

    def _places(self, feeds: Sequence[Feed], starts: Sequence[int]) -> _Places:
        end = max(start + len(feed) for feed, start in zip(feeds, starts))
        rows, n = [self.blocks[feed.sequence_id][0] for feed in feeds], max(map(len, feeds))
        together = rows == list(range(rows[0], rows[0] + len(rows)))  # as they lie: nothing is copied
        chosen = slice(rows[0], rows[0] + len(rows)) if together else self.tensor(rows)
        if together and all(start == starts[0] and len(feed) == n for feed, start in zip(feeds, starts)):
            return _Places(chosen, slice(starts[0], end), end)
        tokens = [
            (row, start + k, here, n - len(feed) + k)
            for here, (row, start, feed) in enumerate(zip(rows, starts, feeds))
            for k in range(len(feed))
        ]
        row, at, here, token = self.tensor(list(zip(*tokens)))
        return _Places(chosen, None, end, (row, at), (here, token))

    def free(self, sequence_id: Hashable) -> None:
        """Forget a sequence; the one in the last row takes its place, so that the rows stay together."""
        self._held(sequence_id)
        last = list(self.blocks)[-1]
        [row], [last_row], length = self.blocks[sequence_id], self.blocks[last], self.lengths[last]
        for layer in (layer for layer in self.layers if layer.is_initialized):
            if sequence_id != last:
                layer.copy((row, slice(length)), (last_row, slice(length)))
            layer.clear(last_row)
        order = [last if other == sequence_id else other for other in list(self.blocks)[:-1]]
        self.blocks = {other: [place] for place, other in enumerate(order)}
        self.lengths = {other: self.lengths[other] for other in order}
