"""A leaner step for models built like Llama: the same weights and the same function in a third of the operations.

On a small model most of a step is not arithmetic but dozens of small operations a layer, each with its own call. Here
queries, keys and values are one product, gate and up another; a norm is one operation; rotary positions are looked up
in a table and turn queries and keys together; the mask is made once a step (notebook 08; Pope et al. 2022, "Efficiently
Scaling Transformer Inference", fuse these products for the same reason).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from helpers.decoding.kv_cache import KVCache
from helpers.decoding.masks import tree_bias
from helpers.errors import CourseError

KNOWN = ("llama", "mistral", "qwen2")


@dataclass(frozen=True)
class Output:
    """What `generate` reads of a model's output: logits (1, n, vocabulary), hidden states (1, n, hidden)."""

    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...]


def joined(*linears: nn.Module) -> nn.Linear:
    """Linear layers with the same input as one: its output is theirs, one after the other."""
    weight = torch.cat([linear.weight for linear in linears])
    one = nn.Linear(weight.shape[1], weight.shape[0], bias=linears[0].bias is not None, device="meta")
    one.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if one.bias is not None:
        one.bias = nn.Parameter(torch.cat([linear.bias for linear in linears]).detach(), requires_grad=False)
    return one


class LeanLayer(nn.Module):
    """One transformer layer; x is (n, hidden)."""

    def __init__(self, layer: nn.Module, config):
        super().__init__()
        a, m = layer.self_attn, layer.mlp
        self.norms = [(n.weight.detach(), n.variance_epsilon)
                      for n in (layer.input_layernorm, layer.post_attention_layernorm)]  # fmt: skip
        self.qkv, self.out = joined(a.q_proj, a.k_proj, a.v_proj), joined(a.o_proj)
        self.gate_up, self.down = joined(m.gate_proj, m.up_proj), joined(m.down_proj)
        self.size, self.scale = a.head_dim, a.scaling
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, cache, mask, causal: bool) -> torch.Tensor:
        n, turned = len(x), self.heads + self.kv_heads
        qkv = self.qkv(norm(x, *self.norms[0])).view(n, turned + self.kv_heads, self.size)
        qk = torch.addcmul(qkv[:, :turned] * cos, qkv[:, :turned].roll(self.size // 2, -1), sin).transpose(0, 1)
        keys, values = cache.update(qk[None, self.heads :], qkv[:, turned:].transpose(0, 1)[None])
        group = self.heads // self.kv_heads
        if causal:
            query = qk[None, : self.heads]
            a = F.scaled_dot_product_attention(
                query, keys, values, is_causal=True, scale=self.scale, enable_gqa=group > 1
            )
        else:  # heads that share keys are rows of one head (grouped_attention.py)
            query = qk[: self.heads].reshape(1, self.kv_heads, group * n, self.size)
            a = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=self.scale)
        x = x + self.out(a.reshape(self.heads, n, self.size).transpose(0, 1).reshape(n, -1))
        gate, up = self.gate_up(norm(x, *self.norms[1])).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Root-mean-square norm (Zhang and Sennrich 2019) in one operation."""
    return F.rms_norm(x, weight.shape, weight, epsilon)


class Lean(nn.Module):
    """Takes a model's place in `generate`, for one prompt at a time; its joined weights are copies of the model's."""

    def __init__(self, model):
        super().__init__()
        config = model.config
        rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
        windows = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
        if config.model_type not in KNOWN or rope == "dynamic" or windows or config.hidden_act != "silu":
            raise CourseError(
                f"A lean step is written for {', '.join(KNOWN)} without windows: leave this one as it is."
            )
        self.config, self.generation_config = config, model.generation_config
        self.dtype, self.device = model.dtype, model.device
        inner = model.model
        self.embed, self.layers = inner.embed_tokens, nn.ModuleList(LeanLayer(k, config) for k in inner.layers)
        self.last_norm = inner.norm.weight.detach(), inner.norm.variance_epsilon
        self.lm_head = joined(model.get_output_embeddings())
        angles = torch.arange(config.max_position_embeddings)[:, None] * inner.rotary_emb.inv_freq.float().cpu()
        cos, sin = angles.cos() * inner.rotary_emb.attention_scaling, angles.sin() * inner.rotary_emb.attention_scaling
        like = dict(device=model.device, dtype=model.dtype)
        self.cos = torch.cat([cos, cos], -1).to(**like)[:, None]  # (positions, 1, size)
        self.sin = torch.cat([-sin, sin], -1).to(**like)[:, None]  # signed: turning needs no negation
        self.eval()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(self, input_ids: torch.Tensor, past_key_values: KVCache, position_ids: torch.Tensor | None = None,
                attention_mask: torch.Tensor | None = None, logits_to_keep: int = 0, **unused) -> Output:  # fmt: skip
        """As transformers' models, for input_ids (1, n); a mask is additive, (1, 1, n, held)."""
        if len(input_ids) != 1:
            raise CourseError("A lean step reads one prompt at a time: batches take the model as it was.")
        before, n = past_key_values.length, input_ids.shape[1]
        if position_ids is None:
            position_ids = torch.arange(before, before + n, device=self.device)[None]
        if attention_mask is None and before and n > 1:
            attention_mask = tree_bias(range(-1, n - 2), before, self.dtype, self.device)
        group = self.config.num_attention_heads // self.config.num_key_value_heads
        mask = None if attention_mask is None else attention_mask.repeat(1, 1, group, 1)
        x, (cos, sin) = self.embed(input_ids[0]), (table[position_ids[0]] for table in (self.cos, self.sin))
        for layer, cached in zip(self.layers, past_key_values.layers, strict=True):
            x = layer(x, cos, sin, cached, mask, mask is None and n > 1)
        hidden = norm(x, *self.last_norm)
        return Output(self.lm_head(hidden[-logits_to_keep:] if logits_to_keep else hidden)[None], (hidden[None],))
