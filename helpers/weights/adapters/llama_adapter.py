"""LLaMA-Adapter from scratch: learned prompts that each layer attends to, behind a gate that starts closed.

Zhang et al., "LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention", 2023 (notebook 03).
Beside its own attention a layer asks K learned prompts: y = attention(x) + W_o (g softmax(q k^T / sqrt(d)) v), with
keys and values made of the prompts by the layer's own frozen matrices. The gate g is zero at first, so that training
begins with the model as it is. Unlike LoRA it can't be merged into the weights: it costs time in every step.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from helpers.errors import CourseError


class PromptedAttention(nn.Module):
    """A frozen Llama attention, and `count` learned prompts beside it."""

    def __init__(self, attention: nn.Module, count: int):
        super().__init__()
        self.attention = attention.requires_grad_(False)
        hidden_size = attention.q_proj.in_features
        like = dict(device=attention.q_proj.weight.device, dtype=torch.float32)
        self.prompts = nn.Parameter(torch.randn(1, count, hidden_size, **like))
        self.gate = nn.Parameter(torch.zeros(1, **like))

    def forward(self, hidden_states: torch.Tensor, position_embeddings, **more):
        x, places, own = hidden_states, position_embeddings, self.attention
        own_output, weights = own(hidden_states=x, position_embeddings=places, **more)

        def heads(x: torch.Tensor) -> torch.Tensor:
            """(batch, tokens, heads x head_dim) as (batch, heads, tokens, head_dim)."""
            return x.unflatten(-1, (-1, own.head_dim)).transpose(1, 2)

        q = rotated(heads(own.q_proj(x)), *places)
        prompts = self.prompts.to(x.dtype).expand(len(x), -1, -1)
        # The prompts stand nowhere in the text: their keys are not rotated.
        k, v = heads(own.k_proj(prompts)), heads(own.v_proj(prompts))
        grouped = q.shape[1] != k.shape[1]
        attended = F.scaled_dot_product_attention(q, k, v, enable_gqa=grouped)
        gated = self.gate.to(attended.dtype) * attended.transpose(1, 2).flatten(2)
        return own_output + own.o_proj(gated), weights


def rotated(q: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries (batch, heads, tokens, head_dim) turned by their positions (RoPE, Su et al. 2021)."""
    first, second = q.chunk(2, dim=-1)
    return q * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]


def install(model: nn.Module, count: int = 16, layers: int | None = None) -> nn.Module:
    """Freeze the model and give its last `layers` layers (None: all) `count` learned prompts each, in place."""
    every = getattr(getattr(model, "model", None), "layers", None)
    if every is None or not hasattr(every[0], "self_attn") or not hasattr(every[0].self_attn, "q_proj"):
        raise CourseError("LLaMA-Adapter needs a model built like Llama: layers with self_attn and its q_proj.")
    num_layers = len(every) if layers is None else layers
    if count < 1 or not 1 <= num_layers <= len(every):
        raise CourseError(f"Give at least one prompt, and 1 to {len(every)} layers.")
    model.requires_grad_(False)
    for layer in every[-num_layers:]:
        layer.self_attn = PromptedAttention(layer.self_attn, count)
    return model
