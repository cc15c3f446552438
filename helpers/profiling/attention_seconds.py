"""One token's attention over a long context, by the library's way and without copies (notebook 00c)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch.nn import functional as F

from helpers.measuring.timing import take_turns

REPEATED, GROUPED = "keys and values repeated", "read where they lie"


@torch.inference_mode()
def attention_seconds(
    heads: int, kv_heads: int, head_dim: int, contexts: Sequence[int], grouped: Callable, rounds: int = 15
) -> dict[str, dict[int, float]]:
    """Seconds of one layer's attention for one new token of one sequence, by the tokens of its context; `grouped` is
    called as grouped_attention.attend_in_groups. A mask of ones comes with both, as in any batch."""
    arms = {}
    for length in contexts:
        query, mask = torch.randn(1, heads, 1, head_dim), torch.ones(1, 1, 1, length, dtype=torch.bool)
        keys, values = torch.randn(2, 1, kv_heads, length, head_dim)
        arms[REPEATED, length] = _repeated(query, keys, values, mask)
        arms[GROUPED, length] = lambda q=query, k=keys, v=values, m=mask: grouped(q, k, v, m)
    seconds = take_turns(arms, rounds, warmup=2)
    return {way: {length: median(seconds[way, length]) for length in contexts} for way in (REPEATED, GROUPED)}


def _repeated(query, keys, values, mask) -> Callable[[], torch.Tensor]:
    group = query.shape[1] // keys.shape[1]

    def attend() -> torch.Tensor:
        wide = [each.repeat_interleave(group, dim=1) for each in (keys, values)]
        return F.scaled_dot_product_attention(query, *wide, attn_mask=mask)

    return attend
