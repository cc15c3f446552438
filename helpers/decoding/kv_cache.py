"""The KV cache: what attention has already computed, kept in tensors allocated once and written in place.

A transformers cache (any Hugging Face decoder takes it) that does not concatenate at each step, as DynamicCache does.
It can cut back what a proposer guessed wrong, keep one path of a tree, and hold rows of different lengths that join and
leave (notebooks/extras/kv_cache).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from helpers.errors import CourseError


class CacheFullError(CourseError):
    """More tokens or rows than the cache was made for."""


@lru_cache(maxsize=4)  # all layers of a step ask for the same
def _places(lengths: tuple[int, ...], new: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Where rows of these lengths write `new` tokens: row numbers (rows, 1) and positions (rows, new)."""
    with torch.inference_mode(False):  # the next step may be one that trains
        starts = torch.tensor(lengths, device=device)[:, None]
        return torch.arange(len(lengths), device=device)[:, None], starts + torch.arange(new, device=device)


class _Layer(CacheLayerMixin):
    """Keys and values of one layer: (most_rows, kv_heads, capacity, head_dim); row r holds its first lengths[r]."""

    def __init__(self, capacity: int, most_rows: int):
        super().__init__()
        self.capacity, self.most_rows = capacity, most_rows
        self.lengths: list[int] = []  # of the rows that are here

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        heads = key_states.shape[1]
        # Zeros: what lies beside a shorter row is masked, but a NaN that memory happens to hold gets through any mask.
        self.keys = key_states.new_zeros(self.most_rows, heads, self.capacity, key_states.shape[-1])
        self.values = value_states.new_zeros(self.most_rows, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (rows, kv_heads, new, head_dim); returns all that is held, up to the longest row's end."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, _, new, _ = key_states.shape
        lengths = self.lengths or [0] * rows
        self._check(rows, lengths, new)
        start, end = lengths[0], max(lengths) + new
        if min(lengths) == max(lengths):
            self.keys[:rows, :, start:end] = key_states
            self.values[:rows, :, start:end] = value_states
        else:
            row, at = _places(tuple(lengths), new, key_states.device)
            self.keys[row, :, at] = key_states.transpose(1, 2)
            self.values[row, :, at] = value_states.transpose(1, 2)
        self.lengths = [length + new for length in lengths]
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def _check(self, rows: int, lengths: list[int], new: int) -> None:
        if len(lengths) != rows:
            raise CourseError(f"The cache holds {len(lengths)} rows and {rows} were given: give as many as it holds.")
        if rows > self.most_rows:
            raise CacheFullError(f"The cache is made for {self.most_rows} rows and {rows} came: make it larger.")
        if (end := max(lengths) + new) > self.capacity:
            raise CacheFullError(f"The cache holds {self.capacity} tokens and {end} were needed: make it larger.")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return max(self.lengths, default=0)

    def get_max_length(self) -> int:
        return self.capacity

    def reset(self) -> None:
        self.lengths, self.is_initialized = [], False

    def keep(self, row: int, end: int, moved: torch.Tensor | None) -> None:
        """The row's first `end` positions stay; the last of them become what is at the positions `moved`."""
        if moved is not None:
            here = slice(end - len(moved), end)
            self.keys[row, :, here] = self.keys[row, :, moved]
            self.values[row, :, here] = self.values[row, :, moved]
        self.lengths[row] = end

    def copy_row(self, row: int, other: _Layer, theirs: int) -> None:
        """Row `theirs` of another layer, or of this one, becomes row `row`."""
        if not self.is_initialized:
            self.lazy_initialization(other.keys, other.values)
        length = other.lengths[theirs]
        self.keys[row, :, :length] = other.keys[theirs, :, :length]
        self.values[row, :, :length] = other.values[theirs, :, :length]
        self.keys[row, :, length:] = self.values[row, :, length:] = 0  # as for new rows: no NaN of the last user
        self.lengths[row : row + 1] = [length]


def bytes_per_token(layers: int, kv_heads: int, head_dim: int, bytes_per_number: int) -> int:
    """What one token of context takes in the cache: a key and a value for each head of each layer."""
    return 2 * layers * kv_heads * head_dim * bytes_per_number


class KVCache(Cache):
    """A cache of `layers` layers, for at most `rows` rows of at most `capacity` tokens each."""

    def __init__(self, layers: int, capacity: int, rows: int = 1):
        super().__init__(layers=[_Layer(capacity, rows) for _ in range(layers)])

    @classmethod
    def for_model(cls, model, capacity: int, rows: int = 1) -> KVCache:
        return cls(model.config.get_text_config().num_hidden_layers, capacity, rows)

    @property
    def lengths(self) -> list[int]:
        """Tokens held of each row."""
        return list(self.layers[0].lengths)

    @property
    def length(self) -> int:
        """Tokens held of the longest row."""
        return self.layers[0].get_seq_length()

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens held (not of the capacity)."""
        held = ((t, sum(layer.lengths)) for layer in self.layers if layer.lengths for t in (layer.keys, layer.values))
        return sum(tokens * t.shape[1] * t.shape[3] * t.element_size() for t, tokens in held)

    def cut(self, length: int, row: int | None = None) -> None:
        """Forget all but the first `length` tokens of a row, or of every row."""
        self.keep(length, [], row)

    def keep(self, start: int, kept: list[int], row: int | None = None) -> None:
        """Keep the first `start` tokens and, of those after them, the ones at the offsets `kept` (a path of a tree), of
        a row or of every row."""
        rows = range(len(self.lengths)) if row is None else [row]
        for here in rows:
            held = self._held(here)
            if start < 0 or min(kept, default=0) < 0:
                raise CourseError("A cache keeps a number of tokens from 0 up, and offsets from 0 up.")
            if start > held or start + max(kept, default=-1) >= held:
                raise CourseError(f"The cache holds {held} tokens of row {here}: it can't keep more than that.")
        stay = next((k for k, offset in enumerate(kept) if offset != k), len(kept))  # these are in their places
        moved = (
            torch.tensor([start + k for k in kept[stay:]], device=self.layers[0].keys.device) if kept[stay:] else None
        )
        for layer in self.layers:
            for here in rows:
                layer.keep(here, start + len(kept), moved)

    def join(self, other: KVCache) -> None:
        """The rows of another cache, prefilled on its own, become the last rows here."""
        here, mine = len(self.lengths), self.layers[0]
        if here + len(other.lengths) > mine.most_rows:
            raise CacheFullError(f"The cache holds {mine.most_rows} rows, {here} of them taken: let rows leave first.")
        if other.length > mine.capacity:
            raise CacheFullError(f"The cache holds {mine.capacity} tokens and {other.length} were needed.")
        for layer, theirs in zip(self.layers, other.layers, strict=True):
            for row in range(len(theirs.lengths)):
                layer.copy_row(here + row, theirs, row)

    def leave(self, row: int) -> None:
        """A row goes, and the last one takes its place: one row is copied, however many there are."""
        self._held(row)
        for layer in self.layers:
            if row != len(layer.lengths) - 1:
                layer.copy_row(row, layer, len(layer.lengths) - 1)
            layer.lengths.pop()

    def _held(self, row: int) -> int:
        if not 0 <= row < len(self.lengths):
            raise CourseError(f"The cache holds {len(self.lengths)} rows: there is no row {row}.")
        return self.lengths[row]
