"""Attention that reads grouped heads as they lie in the cache, and the masks that say which token sees which.

Several query heads share one key-value head (grouped-query attention, Ainslie et al. 2023). The library's way repeats
keys and values until every query head has its own, which copies the whole cache at each step. But heads that share keys
can as well be taken for further rows of one head: then nothing is copied, and each key is read once for the group.
Registered with transformers, so that any of its models can use it (notebooks/extras/kv_cache).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from helpers.errors import CourseError

NAME = "grouped_heads"

UNKNOWN = ("softcap", "s_aux", "position_bias")  # what some models add to the scores and this attention doesn't know


def grouped_attention(
    module, query, key, value, attention_mask=None, dropout=0.0, scaling=None, is_causal=None, **more
):
    """Scaled dot-product attention; the arguments are as transformers gives them.

    Args:
        query: (rows, heads, n, size); key and value: (rows, kv_heads, held, size), kv_heads a divisor of heads.
        attention_mask: (rows or 1, 1, n, held), True or 0 where a token is seen; None: causal.

    Returns:
        (rows, n, heads, size) and None for the weights, which are never written down.
    """
    if any(more.get(name) is not None for name in UNKNOWN):
        raise CourseError(f"This model's attention uses one of {', '.join(UNKNOWN)}: leave it the library's attention.")
    rows, heads, n, _ = query.shape
    group = heads // key.shape[1]
    if attention_mask is None and n > 1:  # a prefill computes so much that the copies don't matter
        causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
        out = F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=causal, scale=scaling, enable_gqa=group > 1
        )
    else:
        if attention_mask is not None and group > 1:
            attention_mask = attention_mask.repeat(1, 1, group, 1)
        out = F.scaled_dot_product_attention(
            together(query, key.shape[1]), key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
        ).view(rows, heads, n, value.shape[-1])
    return out.transpose(1, 2).contiguous(), None


def together(query: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """(rows, heads, n, size) as (rows, kv_heads, heads / kv_heads * n, size): neighbouring heads, which share their
    keys, become rows of one head."""
    rows, heads, n, size = query.shape
    return query.reshape(rows, kv_heads, heads // kv_heads * n, size)


AttentionInterface.register(NAME, grouped_attention)

AttentionMaskInterface.register(NAME, sdpa_mask)


def install(model):
    """Let the model attend by `grouped_attention`, where its architecture lets itself be told; returns the model."""
    if type(model)._can_set_attn_implementation():  # Falcon, for one, has its attention built in
        model.set_attn_implementation(NAME)
    return model
