"""The tokens with the largest logits, faster than `topk` finds them in a large vocabulary."""

from __future__ import annotations

from torch import Tensor

BLOCK = 128  # logits


def top_tokens(logits: Tensor, k: int) -> Tensor:
    """The `k` tokens with the largest logits, best first: (rows, k) of (rows, vocabulary).

    As `topk`, and several times as fast: all of them lie in the `k` blocks whose largest logits are the largest.
    """
    rows, vocabulary = logits.shape
    if vocabulary % BLOCK or vocabulary // BLOCK <= k:
        return logits.topk(min(k, vocabulary)).indices
    blocks = logits.view(rows, -1, BLOCK)
    best = blocks.amax(-1).topk(k).indices  # (rows, k)
    candidates = blocks.gather(1, best[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    places = candidates.topk(k).indices
    return best.gather(1, places // BLOCK) * BLOCK + places % BLOCK
