"""A KV cache in blocks that come as they are needed: nothing is reserved for answers that may never be that long.

PagedAttention (Kwon et al. 2023). Sequences that begin alike share the blocks of their beginning, as long as these are
full. The step in C++ finds keys in their blocks; for other models they are put one after the other first, which copies.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch

from helpers.decoding.feed import Feed
from helpers.decoding.sequence_cache import CacheFullError, CacheLayer, SequenceCache
from helpers.engine.blocks import BlockPool
from helpers.errors import CourseError
from helpers.measuring.cost_model import kv_heads_of

BLOCK = 16  # tokens; the step in C++ takes multiples of it


class _Places(NamedTuple):
    """Where a step's tokens go, (block, place) of each, and where they come from, (feed, token); the blocks of each
    sequence (feeds, width), filled up; which places (feeds, 1, end, 1) are past a sequence's end."""

    index: tuple[torch.Tensor, torch.Tensor]
    source: tuple[torch.Tensor, torch.Tensor]
    table: torch.Tensor
    past: torch.Tensor


class _Blocks(CacheLayer):
    """One layer, for models that want keys in one piece."""

    def update(self, key_states, value_states, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        (block, place), (feed, token), table, past = self.cache.places
        pieces = []
        for held, new in ((self.keys, key_states), (self.values, value_states)):
            held[block, :, place] = new[feed, :, token]
            whole = held[table].transpose(1, 2).flatten(2, 3)[:, :, : past.shape[2]]
            pieces.append(whole.masked_fill(past, 0))  # a NaN of another sequence would get through a mask
        return tuple(pieces)


class PagedCache(SequenceCache):
    """`num_blocks` blocks of `block_size` tokens for any number of sequences."""

    def __init__(self, layers: int, num_blocks: int, block_size: int = BLOCK):
        if num_blocks < 1 or block_size < 1:
            raise CourseError("A paged cache has one block of one token at least.")
        super().__init__(layers, num_blocks, block_size, _Blocks)
        self.pool = BlockPool(num_blocks)
        self.tokens: dict[Hashable, list[int]] = {}  # what is held of each sequence
        self._full: dict[Hashable, int] = {}  # blocks of each that others can find
        self.places: _Places | None = None

    @classmethod
    def for_model(cls, model, num_blocks: int, block_size: int = BLOCK) -> PagedCache:
        """Its memory is set aside here, not while the first request waits."""
        config = model.config.get_text_config()
        cache, (heads, size) = cls(config.num_hidden_layers, num_blocks, block_size), kv_heads_of(config)
        like = torch.empty(1, heads, 0, size, dtype=model.dtype, device=model.device)
        for layer in cache.layers:
            layer.lazy_initialization(like, like)
        return cache

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that so many tokens take."""
        return -(-num_tokens // self.block_size)

    def can_append(self, sequence_id: Hashable, num_tokens: int) -> bool:
        return self.missing(sequence_id, self.lengths.get(sequence_id, 0) + num_tokens) <= len(self.pool.free)

    def missing(self, sequence_id: Hashable, end: int) -> int:
        """Blocks that a sequence lacks for so many tokens: new ones, and one for its last block if others use it."""
        blocks, held = self.blocks.get(sequence_id, []), self.lengths.get(sequence_id, 0)
        shared = held % self.block_size and self.pool.users[blocks[-1]] > 1
        return self.blocks_for(end) - len(blocks) + bool(shared)

    def share_prefix(self, sequence_id: Hashable, tokens: Sequence[int]) -> int:
        """Begin a new sequence with the blocks that hold the beginning of these tokens already;
        returns how many tokens that are. The last token is always left to read: its logits are
        not in the cache."""
        blocks: list[int] = []
        for end in range(self.block_size, len(tokens), self.block_size):
            before = blocks[-1] if blocks else None
            block = self.pool.find(before, tokens[end - self.block_size : end])
            if block is None:
                break
            blocks.append(block)
        if blocks:
            for block in blocks:
                self.pool.share(block)
            length = len(blocks) * self.block_size
            self.blocks[sequence_id], self.lengths[sequence_id] = blocks, length
            self.tokens[sequence_id] = list(tokens[:length])
            self._full[sequence_id] = len(blocks)
        return len(blocks) * self.block_size

    def reserve(self, ends: dict[Hashable, int]) -> None:
        needed = sum(self.missing(sequence_id, end) for sequence_id, end in ends.items())
        if needed > len(self.pool.free):
            raise CacheFullError(
                f"The cache has {len(self.pool.free)} free blocks of {self.block_size} tokens, {needed} were needed: "
                "free a sequence, or give the cache more."
            )
        for sequence_id, end in ends.items():
            blocks, held = self.blocks.setdefault(sequence_id, []), self.lengths.get(sequence_id, 0)
            if held % self.block_size:
                self._own_last(sequence_id, blocks)
            blocks += [self.pool.take() for _ in range(self.blocks_for(end) - len(blocks))]

    def begin(self, feeds: Sequence[Feed]) -> list[int]:
        starts = super().begin(feeds)
        for feed in feeds:
            self.tokens.setdefault(feed.sequence_id, []).extend(feed.tokens)
        return starts

    def keep(self, sequence_id: Hashable, start: int, offsets: Sequence[int]) -> None:
        super().keep(sequence_id, start, offsets)
        tokens, blocks, size = self.tokens[sequence_id], self.blocks[sequence_id], self.block_size
        tokens[start:] = [tokens[start + offset] for offset in offsets]
        while len(blocks) > self.blocks_for(len(tokens)):
            self.pool.give_back(blocks.pop())
        full = len(tokens) // size
        for place in range(min(self._full.get(sequence_id, 0), full), full):
            self.pool.remember(blocks[place], blocks[place - 1] if place else None, tokens[place * size :][:size])
        self._full[sequence_id] = full

    def free(self, sequence_id: Hashable) -> None:
        """Forget a sequence; its blocks are free, the last ones first to be taken."""
        self._held(sequence_id)
        for block in reversed(self.blocks.pop(sequence_id)):
            self.pool.give_back(block)
        for of_sequences in (self.lengths, self.tokens, self._full):
            of_sequences.pop(sequence_id, None)

    def update(self, key_states, value_states, layer_idx: int, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        if layer_idx == 0:
            self.begin_by_itself(*key_states.shape[::2][:2])
            self._start, self.places = None, self._places(self.feeds, self.starts)
        return self.layers[layer_idx].update(key_states, value_states)

    def _places(self, feeds: Sequence[Feed], starts: Sequence[int]) -> _Places:
        ends, n = [start + len(feed) for feed, start in zip(feeds, starts)], max(map(len, feeds))
        index = [self.index(feed.sequence_id, range(s, e)) for feed, s, e in zip(feeds, starts, ends)]
        source = [(here, n - len(feed) + k) for here, feed in enumerate(feeds) for k in range(len(feed))]
        tables = [self.blocks[feed.sequence_id] for feed in feeds]
        width = max(map(len, tables))
        places = torch.arange(max(ends), device=index[0][0].device)
        return _Places(
            tuple(torch.cat(parts) for parts in zip(*index)),
            tuple(self.tensor(source).unbind(1)),
            self.tensor([[*table, *[0] * (width - len(table))] for table in tables]),
            (places >= self.tensor(ends)[:, None])[:, None, :, None],
        )

    def _own_last(self, sequence_id: Hashable, blocks: list[int]) -> None:
        """Before a sequence writes into its last block: others that use it keep theirs, and nobody finds it again."""
        self._full[sequence_id] = min(self._full.get(sequence_id, 0), len(blocks) - 1)
        if self.pool.users[blocks[-1]] == 1:
            return self.pool.forget(blocks[-1])
        old, new = blocks[-1], self.pool.take()
        for layer in (layer for layer in self.layers if layer.is_initialized):
            layer.copy((new, slice(None)), (old, slice(None)))
        blocks[-1] = new
        self.pool.give_back(old)
