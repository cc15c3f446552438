"""Steps that batches take for answers of given lengths, if prompts cost nothing: what continuous batching promises."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def static_steps(lengths: Sequence[int], batch_size: int) -> int:
    """Steps until all answers are written, `batch_size` at a time, where a batch ends with
    its longest answer."""
    batches = range(0, len(lengths), batch_size)
    return sum(max(lengths[start : start + batch_size]) for start in batches)


def continuous_steps(lengths: Sequence[int], batch_size: int) -> int:
    """The same where the next answer, in order, begins as soon as one has ended."""
    ends = [0] * batch_size  # of the answer in each place
    for length in lengths:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)
