"""The KV cache: what attention has already computed, kept in tensors allocated once and written in place.

A transformers cache (any Hugging Face decoder takes it) that does not concatenate at each step, as DynamicCache does,
and can cut back what a proposer guessed wrong.
"""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from helpers.errors import CourseError


class CacheFullError(CourseError):
    """More tokens than the cache was made for."""


class _Layer(CacheLayerMixin):
    """Keys and values of one layer: (rows, kv_heads, capacity, head_dim), of which `length` positions are written."""

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity, self.length = capacity, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        rows, heads, _, size = key_states.shape
        self.keys = key_states.new_empty(rows, heads, self.capacity, size)
        self.values = value_states.new_empty(rows, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self.capacity:
            raise CacheFullError(f"The cache holds {self.capacity} tokens and {end} were needed: make it larger.")
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.capacity

    def reset(self) -> None:
        self.length = 0

    def keep(self, start: int, kept: list[int]) -> None:
        """Of the positions from `start` on, only `start + k` for k in `kept` stay, moved together."""
        if start + max(kept, default=-1) >= self.length or start > self.length:
            raise CourseError(f"The cache holds {self.length} tokens: it can't keep more than that.")
        end = start + len(kept)
        if kept != list(range(len(kept))):
            index = torch.tensor(kept, device=self.keys.device) + start
            self.keys[:, :, start:end] = self.keys[:, :, index]
            self.values[:, :, start:end] = self.values[:, :, index]
        self.length = end


class KVCache(Cache):
    """A cache of `layers` layers for at most `capacity` tokens a row."""

    def __init__(self, layers: int, capacity: int):
        super().__init__(layers=[_Layer(capacity) for _ in range(layers)])

    @classmethod
    def for_model(cls, model, capacity: int) -> KVCache:
        return cls(model.config.get_text_config().num_hidden_layers, capacity)

    @property
    def length(self) -> int:
        """Tokens held, per row."""
        return self.layers[0].length

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens held (not of the capacity)."""
        written = (
            t[:, :, : layer.length] for layer in self.layers for t in (layer.keys, layer.values) if t is not None
        )
        return sum(t.numel() * t.element_size() for t in written)

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.keep(length, [])

    def keep(self, start: int, kept: list[int]) -> None:
        """Keep the first `start` tokens and, of those after them, the ones at the offsets `kept` (a path of a tree)."""
        for layer in self.layers:
            layer.keep(start, kept)
