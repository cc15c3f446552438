"""The KV cache: what attention has already computed, kept in tensors allocated once and written in place.

A transformers cache (any Hugging Face decoder takes it) that does not concatenate at each step, as DynamicCache does.
It speaks by sequence: a step begins with what each of them reads, and ends with what of it is kept. Lengths and places
stand once, for all layers (notebooks/extras/00b_kv_cache).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from helpers.decoding.feed import Feed
from helpers.errors import CourseError


class CacheFullError(CourseError):
    """More tokens or sequences than the cache was made for."""


def bytes_per_token(layers: int, kv_heads: int, head_dim: int, bytes_per_number: int) -> int:
    """Bytes that one token of one sequence takes in a KV cache: a key and a value in each layer and KV head."""
    return 2 * layers * kv_heads * head_dim * bytes_per_number


class _Layer(CacheLayerMixin):
    """Keys and values of one layer: (max_sequences, kv_heads, capacity, head_dim), a row for each sequence."""

    is_sliding = False

    def __init__(self, cache: KVCache):
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        heads, size = key_states.shape[1], (self.cache.max_sequences, self.cache.capacity)
        # Zeros: what lies beside a shorter sequence is masked, but a NaN that memory happens to hold gets through.
        self.keys = key_states.new_zeros(size[0], heads, size[1], key_states.shape[-1])
        self.values = value_states.new_zeros(size[0], heads, size[1], value_states.shape[-1])
        self.is_initialized = True

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

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return self.cache.get_seq_length()

    def get_max_length(self) -> int:
        return self.cache.capacity

    @torch.inference_mode()  # as what a decoder has written
    def move(self, row: int, from_row: int, length: int) -> None:
        """The first `length` tokens of a row become another row's."""
        self.keys[row, :, :length] = self.keys[from_row, :, :length]
        self.values[row, :, :length] = self.values[from_row, :, :length]

    @torch.inference_mode()
    def clear(self, row: int) -> None:
        """A NaN that one sequence leaves behind would get through the next one's mask."""
        self.keys[row].zero_()
        self.values[row].zero_()

    @torch.inference_mode()
    def gather(self, row: int, end: int, moved: torch.Tensor) -> None:
        """The last tokens before `end` become what is at the indices `moved`."""
        here = slice(end - len(moved), end)
        self.keys[row, :, here] = self.keys[row, :, moved]
        self.values[row, :, here] = self.values[row, :, moved]


class _Places(NamedTuple):
    """Where a step's tokens go: rows of the tensors in the order of the feeds; the same columns `new` of all rows, or
    for each token its (row, column) `index` and where it comes from, its `source` (feed, token); `end` of what is read.
    """

    rows: slice | torch.Tensor
    new: slice | None
    end: int
    index: tuple[torch.Tensor, torch.Tensor] | None = None
    source: tuple[torch.Tensor, torch.Tensor] | None = None

    def as_tensors(self, batch_size: int, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The row of each feed, and the column of each token (batch_size, num_tokens), -1 for what only fills up."""
        rows = self.rows if isinstance(self.rows, torch.Tensor) else torch.arange(self.rows.start, self.rows.stop)
        if self.new is not None:
            columns = torch.arange(self.new.start, self.new.stop)
            return rows, columns if batch_size == 1 else columns.repeat(batch_size, 1)
        columns = torch.full((batch_size, num_tokens), -1)
        columns[self.source] = self.index[1]
        return rows, columns


class KVCache(Cache):
    """Room for `max_sequences` sequences of `capacity` tokens each, in all layers.

    A step: `begin(feeds)`, the model's run, and for each sequence `keep` of what was guessed right; `free` when it is
    done. A model that is run without `begin` goes on with the sequences 0, 1, ..., one for each row of its input.
    """

    def __init__(self, layers: int, capacity: int, max_sequences: int = 1):
        self.capacity, self.max_sequences = capacity, max_sequences
        self.lengths: dict[Hashable, int] = {}  # tokens held of each sequence, in the order of their rows
        self.rows: dict[Hashable, int] = {}
        self.places: _Places | None = None
        self._start: int | None = None  # of the longest sequence before the step that has begun and not run yet
        super().__init__(layers=[_Layer(self) for _ in range(layers)])

    @classmethod
    def for_model(cls, model, capacity: int, max_sequences: int = 1) -> KVCache:
        return cls(model.config.get_text_config().num_hidden_layers, capacity, max_sequences)

    @property
    def length(self) -> int:
        """Tokens held of the longest sequence."""
        return max(self.lengths.values(), default=0)

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens held (not of the capacity)."""
        tensors = (t for layer in self.layers if layer.is_initialized for t in (layer.keys, layer.values))
        return sum(self.lengths.values()) * sum(t.shape[1] * t.shape[3] * t.element_size() for t in tensors)

    def can_append(self, sequence_id: Hashable, num_tokens: int) -> bool:
        """Whether there is room for so many more tokens of a sequence, held already or new."""
        fits = self.lengths.get(sequence_id, 0) + num_tokens <= self.capacity
        return fits and (sequence_id in self.rows or len(self.rows) < self.max_sequences)

    def begin(self, feeds: Sequence[Feed]) -> list[int]:
        """Give each feed's tokens their places, before the model runs; CacheFullError changes nothing.

        Returns:
            the tokens held of each sequence before.
        """
        starts, ends, new = [], [], 0
        for feed in feeds:
            start = self.lengths.get(feed.sequence_id, 0)
            if feed.start not in (None, start):
                raise CourseError(
                    f"A sequence goes on after {feed.start} tokens, and the cache holds {start} of them: "
                    "preempt it, and everything is read anew."
                )
            starts.append(start)
            ends.append(start + len(feed.tokens))
            new += feed.sequence_id not in self.rows
        if not feeds or (len(feeds) > 1 and len({feed.sequence_id for feed in feeds}) < len(feeds)):
            raise CourseError("A step reads one feed of each sequence, and one at least.")
        if len(self.rows) + new > self.max_sequences:
            raise CacheFullError(
                f"The cache is made for {self.max_sequences} sequences and has {len(self.rows)}, "
                f"{new} more came: free one, or make it larger."
            )
        if max(ends) > self.capacity:
            raise CacheFullError(f"The cache holds {self.capacity} tokens and {max(ends)} were needed: make it larger.")
        for feed, end in zip(feeds, ends):
            self.rows.setdefault(feed.sequence_id, len(self.rows))
            self.lengths[feed.sequence_id] = end
        self.places, self._start = self._places(feeds, starts, max(ends)), max(starts)
        return starts

    def _places(self, feeds: Sequence[Feed], starts: Sequence[int], end: int) -> _Places:
        if len(feeds) == 1:
            row = self.rows[feeds[0].sequence_id]
            return _Places(slice(row, row + 1), slice(starts[0], end), end)
        rows, n = [self.rows[feed.sequence_id] for feed in feeds], max(len(feed.tokens) for feed in feeds)
        together = rows == list(range(rows[0], rows[0] + len(rows)))  # as they lie: nothing is copied
        chosen = slice(rows[0], rows[0] + len(rows)) if together else self._tensor(rows)
        if together and all(start == starts[0] and len(feed.tokens) == n for feed, start in zip(feeds, starts)):
            return _Places(chosen, slice(starts[0], end), end)
        tokens = [
            (row, start + k, here, n - len(feed) + k)
            for here, (row, start, feed) in enumerate(zip(rows, starts, feeds))
            for k in range(len(feed))
        ]
        row, at, here, token = self._tensor(list(zip(*tokens)))
        return _Places(chosen, None, end, (row, at), (here, token))

    def _tensor(self, values: Sequence) -> torch.Tensor:
        keys = self.layers[0].keys
        return torch.tensor(values, device=None if keys is None else keys.device)

    def update(self, key_states, value_states, layer_idx: int, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        if layer_idx == 0:
            self.places_of_step(*key_states.shape[::2][:2])
        return self.layers[layer_idx].update(key_states, value_states)

    def end_of_step(self, num_tokens: int) -> int:
        """How many tokens the longest sequence will hold after the step that reads so many of each."""
        return self.length + num_tokens if self._start is None else self.places.end

    def places_of_step(self, batch_size: int, num_tokens: int) -> _Places:
        """Where the tokens go that the model reads now."""
        if self._start is None:
            self._begin_by_itself(batch_size, num_tokens)
        self._start = None
        return self.places

    def _begin_by_itself(self, batch_size: int, num_tokens: int) -> None:
        """For a model that is run without `begin`: all that the cache holds goes on, row by row."""
        if self.rows and (list(self.rows) != list(range(batch_size)) or len(set(self.lengths.values())) > 1):
            raise CourseError(
                "This cache holds sequences that came one by one: run the model by forward(feeds, cache)."
            )
        self.begin([Feed(row, [0] * num_tokens) for row in range(batch_size)])

    def rollback(self, feeds: Sequence[Feed], starts: Sequence[int]) -> None:
        """Undo `begin`, where the model's run was interrupted: the cache holds again what it held before."""
        self._start = None
        for feed, start in reversed(list(zip(feeds, starts))):
            if start:
                self.lengths[feed.sequence_id] = start
            else:
                self.free(feed.sequence_id)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens held of the longest sequence, before the step that has begun."""
        return self.length if self._start is None else self._start

    def keep(self, sequence_id: Hashable, start: int, offsets: Sequence[int]) -> None:
        """Keep a sequence's first `start` tokens and, of those after them, the ones at `offsets`: a tree's path."""
        held = self._held(sequence_id)
        if start < 0 or min(offsets, default=0) < 0:
            raise CourseError("A cache keeps a number of tokens from 0 up, and offsets from 0 up.")
        if start > held or start + max(offsets, default=-1) >= held:
            raise CourseError(f"The cache holds {held} tokens of that sequence: it can't keep more.")
        in_place = next((k for k, offset in enumerate(offsets) if offset != k), len(offsets))
        end = self.lengths[sequence_id] = start + len(offsets)
        if in_place < len(offsets):
            moved = self._tensor([start + offset for offset in offsets[in_place:]])
            for layer in self.layers:
                layer.gather(self.rows[sequence_id], end, moved)

    def crop(self, length: int, sequence_id: Hashable = 0) -> None:
        """Forget all but the first `length` tokens of a sequence."""
        self.keep(sequence_id, length, ())

    def free(self, sequence_id: Hashable) -> None:
        """Forget a sequence; the one in the last row takes its place, so that the rows stay together."""
        self._held(sequence_id)
        row, last = self.rows[sequence_id], list(self.rows)[-1]
        for layer in (layer for layer in self.layers if layer.is_initialized):
            if sequence_id != last:
                layer.move(row, self.rows[last], self.lengths[last])
            layer.clear(self.rows[last])
        order = [last if other == sequence_id else other for other in list(self.rows)[:-1]]
        self.rows = {other: place for place, other in enumerate(order)}
        self.lengths = {other: self.lengths[other] for other in order}

    def reset(self) -> None:
        self.rows, self.lengths, self.places, self._start = {}, {}, None, None

    def _held(self, sequence_id: Hashable) -> int:
        if sequence_id not in self.lengths:
            raise CourseError(f"The cache holds no sequence {sequence_id!r}.")
        return self.lengths[sequence_id]
