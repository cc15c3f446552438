"""Training steps on a CPU in half the time (notebook 03): attention by matrix products, layers compiled.

Fused attention saves memory, and time where memory is slow. On a CPU, with rows of some hundred tokens, its backward
pass takes longer than the matrix products that it is made of; so here the products are written out. What stands between
a layer's products (norms, rotations, casts, adapters' additions) torch.compile joins.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from helpers.kernels import torch_compile
from helpers.kernels.fused_llama import KINDS
from helpers.kernels.grouped_attention import grouped_attention, together

NAME = "by_products"


def attention_by_products(module, query, key, value, attention_mask=None, dropout=0.0, scaling=None, **more):
    """softmax(scaling * query key^T) value, as transformers calls it; heads that share keys are taken together.

    Args:
        query: (batch_size, heads, n, head_dim); key, value: (batch_size, kv_heads, n, head_dim).
        attention_mask: (batch_size, 1, n, n), True where a token is seen.

    Returns:
        (batch_size, n, heads, head_dim), and None for the weights.
    """
    if not module.training or attention_mask is None or attention_mask.dtype != torch.bool:
        return grouped_attention(module, query, key, value, attention_mask, dropout, scaling, **more)
    grouped = together(query, key.shape[1]) * scaling
    scores = (grouped @ key.transpose(-1, -2)).view(*query.shape[:3], -1)
    weights = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min).softmax(-1)
    out = weights.view(*grouped.shape[:3], -1) @ value
    return out.view(*query.shape).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attention_by_products)
AttentionMaskInterface.register(NAME, sdpa_mask)


def speed_up(model: nn.Module, compiled: bool) -> None:
    """Let a model built like Llama, with adapters or without, train by the faster ways; its answers stay the library's.

    `compiled`: worth some half a minute at the first step. Batches should then have one shape.

    Raises:
        CourseError: torch.compile can't work here.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if base.config.model_type not in KINDS:
        return
    base.set_attn_implementation(NAME)
    if compiled:
        torch_compile.prepare()
        layers = base.model.layers
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * len(layers))
        for layer in layers:
            _compile_in_training(layer)


def _compile_in_training(layer: nn.Module) -> None:
    plain, compiled = layer.forward, torch.compile(layer.forward)

    def forward(*args, **options):
        return (compiled if layer.training else plain)(*args, **options)

    layer.forward = forward
