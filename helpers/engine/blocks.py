"""Blocks of KV cache memory: who uses them, and what full ones hold.

Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", 2023. A block that
nobody uses keeps what it holds until it is needed: another prompt that begins with the same tokens takes it again.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence

from helpers.decoding.sequence_cache import CacheFullError

Content = tuple[int, tuple[int, ...]]  # the number of the beginning before it, its tokens


class BlockPool:
    """`count` blocks, each free, in use, or in use by several sequences that begin alike."""

    def __init__(self, count: int):
        self.users = [0] * count
        self.free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))  # the longest unused first
        self._beginning: dict[int, int] = {}  # of a full block: the number of all tokens up to its end
        self._numbers = itertools.count(1)
        self._content: dict[int, Content] = {}
        self._block: dict[Content, int] = {}

    def take(self) -> int:
        """A free block for one user; what it held is forgotten."""
        if not self.free:
            raise CacheFullError("All blocks of the cache are in use: free a sequence, or give the cache more.")
        block, _ = self.free.popitem(last=False)
        self.forget(block)
        self.users[block] = 1
        return block

    def share(self, block: int) -> None:
        """One user more."""
        self.free.pop(block, None)
        self.users[block] += 1

    def give_back(self, block: int) -> None:
        """One user less; without any the block is free, and still holds what it held."""
        self.users[block] -= 1
        if not self.users[block]:
            self.free[block] = None

    def remember(self, block: int, before: int | None, tokens: Sequence[int]) -> None:
        """The block is full, of `tokens` that come after those of the block `before` (None: it is the first)."""
        content = self._after(before, tokens)
        if content is None or block in self._beginning:
            return
        if content in self._block:  # another block holds the same
            self._beginning[block] = self._beginning[self._block[content]]
        else:
            self._beginning[block] = next(self._numbers)
            self._block[content], self._content[block] = block, content

    def find(self, before: int | None, tokens: Sequence[int]) -> int | None:
        """A block that holds these tokens after that block, if there is one."""
        return self._block.get(self._after(before, tokens))

    def forget(self, block: int) -> None:
        """What the block holds will change."""
        self._beginning.pop(block, None)
        if content := self._content.pop(block, None):
            del self._block[content]

    def _after(self, before: int | None, tokens: Sequence[int]) -> Content | None:
        number = 0 if before is None else self._beginning.get(before)
        return None if number is None else (number, tuple(tokens))
