"""LLaMA-Adapter from scratch: learned prompts that each layer attends to, behind a gate that starts closed.

Zhang et al., "LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention", 2023 (notebook 03).
Beside its own attention a layer asks K learned prompts: y = attention(x) + W_o (g softmax(q k^T / sqrt(d)) v), with
keys and values made of the prompts by the layer's own frozen matrices. The gate g is zero at first, so that training
begins with the model as it is. Unlike LoRA it can't be merged into the weights: it costs time in every step.
"""

from __future__ import annotations

import torch
from torch import nn

from helpers.errors import CourseError


class PromptedAttention(nn.Module):
    """A frozen Llama attention, and `count` learned prompts beside it."""

    def __init__(self, attention: nn.Module, count: int):
        super().__init__()
        self.attention = attention.requires_grad_(False)
        like = dict(device=attention.q_proj.weight.device, dtype=torch.float32)
        self.prompts = nn.Parameter(torch.randn(1, count, attention.q_proj.in_features, **like))
        self.gate = nn.Parameter(torch.zeros(1, **like))

    def forward(self, hidden_states: torch.Tensor, position_embeddings, **more):
        own = self.attention
        said, weights = own(hidden_states=hidden_states, position_embeddings=position_embeddings, **more)

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (-1, own.head_dim)).transpose(1, 2)  # (rows, heads, tokens, head_dim)

        q = rotated(heads(own.q_proj(hidden_states)), *position_embeddings)
        prompts = self.prompts.to(hidden_states.dtype).expand(len(hidden_states), -1, -1)
        k, v = heads(own.k_proj(prompts)), heads(own.v_proj(prompts))  # no position: they stand nowhere in the text
        heard = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])
        heard = self.gate.to(heard.dtype) * heard.transpose(1, 2).flatten(2)
        return said + own.o_proj(heard), weights


def rotated(q: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries (rows, heads, tokens, head_dim) turned by their positions (RoPE, Su et al. 2021)."""
    first, second = q.chunk(2, dim=-1)
    return q * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]


def install(model: nn.Module, count: int = 16, layers: int | None = None) -> nn.Module:
    """Freeze the model and give its last `layers` layers (None: all) `count` learned prompts each, in place."""
    found = getattr(getattr(model, "model", None), "layers", None)
    if found is None or not hasattr(found[0], "self_attn") or not hasattr(found[0].self_attn, "q_proj"):
        raise CourseError("LLaMA-Adapter needs a model built like Llama: layers with self_attn and its q_proj.")
    if count < 1 or not 1 <= (layers or len(found)) <= len(found):
        raise CourseError(f"Give at least one prompt, and 1 to {len(found)} layers.")
    model.requires_grad_(False)
    for layer in found[-(layers or len(found)) :]:
        layer.self_attn = PromptedAttention(layer.self_attn, count)
    return model
