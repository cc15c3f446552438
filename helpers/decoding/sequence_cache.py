"""What every KV cache of the course does: it speaks by sequence.

A transformers cache (any Hugging Face decoder takes it). A step begins with what each sequence reads, and ends with
what of it is kept. Lengths and places stand once, for all layers. How the memory is shared out is what caches differ
in: a piece for each sequence (kv_cache.py), or blocks that come as they are needed (engine/paged_cache.py).
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Sequence

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from helpers.decoding.feed import Feed
from helpers.errors import CourseError


class CacheFullError(CourseError):
    """More tokens or sequences than the cache was made for."""


class CacheLayer(CacheLayerMixin):
    """Keys and values of one layer: (num_blocks, kv_heads, block_size, head_dim)."""

    is_sliding = False

    def __init__(self, cache: SequenceCache):
        super().__init__()
        self._cache = weakref.ref(cache)  # a cycle would keep the memory until Python looks for cycles

    @property
    def cache(self) -> SequenceCache:
        """Whose layer it is."""
        return self._cache()

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        heads, blocks, size = key_states.shape[1], self.cache.num_blocks, self.cache.block_size
        # Zeros: what lies beside a shorter sequence is masked, but a NaN that memory happens to hold gets through.
        self.keys = key_states.new_zeros(blocks, heads, size, key_states.shape[-1])
        self.values = value_states.new_zeros(blocks, heads, size, value_states.shape[-1])
        self.is_initialized = True

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return self.cache.get_seq_length()

    def get_max_length(self) -> int:
        return self.cache.num_blocks * self.cache.block_size

    @torch.inference_mode()  # as what a decoder has written
    def copy(self, to: tuple, source: tuple) -> None:
        """What is at the indices `source` (blocks, places in them) also goes to the indices `to`."""
        for tensor in (self.keys, self.values):
            tensor[to[0], :, to[1]] = tensor[source[0], :, source[1]]

    @torch.inference_mode()
    def clear(self, block: int) -> None:
        """A NaN that one sequence leaves behind would get through the next one's mask."""
        self.keys[block].zero_()
        self.values[block].zero_()


def locate(places: Sequence[int], blocks: Sequence[int], block_size: int) -> list[tuple[int, int]]:
    """For each place of a sequence's tokens, from 0 up: the block where it lies, and the
    place in it. `blocks` are the sequence's, in order: its block table."""
    return [(blocks[place // block_size], place % block_size) for place in places]


class SequenceCache(Cache):
    """Keys and values in `num_blocks` blocks of `block_size` tokens, in all layers; `blocks` are those of each
    sequence, in order, and `lengths` the tokens that they hold.

    A step: `begin(feeds)`, the model's run, and for each sequence `keep` of what was guessed right; `free` when it is
    done. A model that is run without `begin` goes on with the sequences 0, 1, ..., one for each row of its input.
    """

    def __init__(self, layers: int, num_blocks: int, block_size: int, layer: type[CacheLayer] = CacheLayer):
        self.num_blocks, self.block_size = num_blocks, block_size
        self.lengths: dict[Hashable, int] = {}
        self.blocks: dict[Hashable, list[int]] = {}
        self.feeds: Sequence[Feed] = ()  # of the step that began last
        self.starts: list[int] = []  # tokens held before it
        self._start: int | None = None  # of the longest sequence before a step that has begun and not run yet
        super().__init__(layers=[layer(self) for _ in range(layers)])

    @property
    def length(self) -> int:
        """Tokens held of the longest sequence."""
        return max(self.lengths.values(), default=0)

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens held (not of all blocks)."""
        tensors = (t for layer in self.layers if layer.is_initialized for t in (layer.keys, layer.values))
        return sum(self.lengths.values()) * sum(t.shape[1] * t.shape[3] * t.element_size() for t in tensors)

    def can_append(self, sequence_id: Hashable, num_tokens: int) -> bool:
        """Whether there is room for so many more tokens of a sequence, held already or new."""
        raise NotImplementedError

    def reserve(self, ends: dict[Hashable, int]) -> None:
        """Blocks for each sequence's tokens up to its end; CacheFullError changes nothing."""
        raise NotImplementedError

    def begin(self, feeds: Sequence[Feed]) -> list[int]:
        """Give each feed's tokens their places, before the model runs; CacheFullError changes nothing.

        Returns:
            the tokens held of each sequence before.
        """
        starts = [self.lengths.get(feed.sequence_id, 0) for feed in feeds]
        ends = {feed.sequence_id: start + len(feed.tokens) for feed, start in zip(feeds, starts)}
        if not feeds or len(ends) < len(feeds):
            raise CourseError("A step reads one feed of each sequence, and one at least.")
        for feed, start in zip(feeds, starts):
            if feed.start not in (None, start):
                raise CourseError(
                    f"A sequence goes on after {feed.start} tokens, and the cache holds {start} of them: "
                    "preempt it, and everything is read anew."
                )
        self.reserve(ends)
        self.lengths |= ends
        self.feeds, self.starts, self._start = feeds, starts, max(starts)
        return starts

    def begin_by_itself(self, batch_size: int, num_tokens: int) -> None:
        """For a model that is run without `begin`: all that the cache holds goes on, row by row."""
        if self._start is not None:
            return
        if self.lengths and (list(self.lengths) != list(range(batch_size)) or len(set(self.lengths.values())) > 1):
            raise CourseError(
                "This cache holds sequences that came one by one: run the model by forward(feeds, cache)."
            )
        self.begin([Feed(row, [0] * num_tokens) for row in range(batch_size)])

    def blocks_of_step(self) -> list[list[int]]:
        """The blocks of each sequence that the step reads, for a model that finds its keys there by itself."""
        self._start = None
        return [self.blocks[feed.sequence_id] for feed in self.feeds]

    def rollback(self, feeds: Sequence[Feed], starts: Sequence[int]) -> None:
        """Undo `begin`, where the model's run was interrupted: the cache holds again what it held before."""
        self._start = None
        for feed, start in reversed(list(zip(feeds, starts))):
            if start:
                self.crop(start, feed.sequence_id)
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
        self.lengths[sequence_id] = start + len(offsets)
        if in_place < len(offsets):
            to = self.index(sequence_id, range(start + in_place, start + len(offsets)))
            source = self.index(sequence_id, [start + offset for offset in offsets[in_place:]])
            for layer in self.layers:
                layer.copy(to, source)

    def crop(self, length: int, sequence_id: Hashable = 0) -> None:
        """Forget all but the first `length` tokens of a sequence."""
        self.keep(sequence_id, length, ())

    def free(self, sequence_id: Hashable) -> None:
        """Forget a sequence."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all sequences."""
        for sequence_id in list(self.lengths):
            self.free(sequence_id)
        self._start = None

    def index(self, sequence_id: Hashable, places: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The blocks in which a sequence's tokens lie, and their places in them."""
        pairs = locate(places, self.blocks[sequence_id], self.block_size)
        return tuple(self.tensor(pairs).unbind(1))

    def tensor(self, values: Sequence) -> torch.Tensor:
        """Whole numbers on the device of the keys."""
        keys = self.layers[0].keys
        return torch.tensor(values, device=None if keys is None else keys.device)

    def _held(self, sequence_id: Hashable) -> int:
        if sequence_id not in self.lengths:
            raise CourseError(f"The cache holds no sequence {sequence_id!r}.")
        return self.lengths[sequence_id]
