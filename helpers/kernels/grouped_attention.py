"""Attention that reads grouped heads as they lie in the cache.

Several query heads share one key-value head (grouped-query attention, Ainslie et al. 2023). The library's way repeats
keys and values until every query head has its own, which copies the whole cache at each step. But heads that share keys
can as well be taken for further queries of one head: then nothing is copied, and each key is read once for the group.
Registered with transformers, so that any of its models can use it (notebooks/extras/00b_kv_cache).
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
        query: (batch_size, heads, n, head_dim); key and value: (batch_size, kv_heads, length, head_dim), kv_heads a
            divisor of heads.
        attention_mask: (batch_size or 1, 1, n, length), True or 0 where a token is seen; None: causal.

    Returns:
        (batch_size, n, heads, head_dim) and None for the weights, which are never written down.
    """
    if any(more.get(name) is not None for name in UNKNOWN):
        raise CourseError(f"This model's attention uses one of {', '.join(UNKNOWN)}: leave it the library's attention.")
    if attention_mask is None and query.shape[2] > 1:  # a prefill computes so much that the copies don't matter
        causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
        shared = query.shape[1] > key.shape[1]
        out = F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=causal, scale=scaling, enable_gqa=shared
        )
    else:
        out = attend_in_groups(query, key, value, attention_mask, scaling, dropout)
    return out.transpose(1, 2).contiguous(), None


def attend_in_groups(query, key, value, mask=None, scale=None, dropout=0.0):
    """Attention that reads keys and values once for all the heads that share them.

    Args:
        query: (batch_size, heads, n, head_dim).
        key, value: (batch_size, kv_heads, length, head_dim); kv_heads divides heads.
        mask: (batch_size or 1, 1, n, length), True or 0 where a token is seen.

    Returns:
        (batch_size, heads, n, head_dim).
    """
    kv_heads = key.shape[1]
    group = query.shape[1] // kv_heads
    if mask is not None and group > 1:
        mask = mask.repeat(1, 1, group, 1)
    grouped = together(query, kv_heads)
    options = dict(attn_mask=mask, dropout_p=dropout, scale=scale)
    out = F.scaled_dot_product_attention(grouped, key, value, **options)
    return out.view(*query.shape[:3], value.shape[-1])


def together(query: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """(batch_size, heads, n, head_dim) as (batch_size, kv_heads, heads / kv_heads * n, head_dim): neighbouring heads,
    which share their keys, become further queries of one head."""
    batch_size, heads, n, head_dim = query.shape
    return query.reshape(batch_size, kv_heads, heads // kv_heads * n, head_dim)


AttentionInterface.register(NAME, grouped_attention)

AttentionMaskInterface.register(NAME, sdpa_mask)


def install(model):
    """Let the model attend by `grouped_attention`, where its architecture lets itself be told; returns the model."""
    if type(model)._can_set_attn_implementation():  # Falcon, for one, has its attention built in
        model.set_attn_implementation(NAME)
    return model
