"""A fused step for models built like Llama: the same weights and the same function in a third of the operations.

On a small model most of a step is not arithmetic but dozens of small operations a layer, each with its own call. Here
queries, keys and values are one product, gate and up another; a norm is one operation; rotary positions are looked up
in a table and turn queries and keys together; the mask is made once a step (notebook 08; Pope et al. 2022, "Efficiently
Scaling Transformer Inference", fuse these products for the same reason).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from helpers.decoding.feed import Feed
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.masks import step_bias
from helpers.errors import CourseError
from helpers.kernels.grouped_attention import together
from helpers.kernels.packed_linear import PackedLinear

KINDS = ("llama", "mistral", "qwen2", "qwen3")
ROPES = ("default", "linear", "llama3", "yarn")  # whose angles don't depend on how long the text is


class Output(NamedTuple):
    """What a decoder reads of a model's output: logits (batch_size, n, vocabulary), and the hidden states
    (batch_size, n, hidden) that the lm_head made them of."""

    logits: torch.Tensor
    hidden: torch.Tensor


class Beside(nn.Module):
    """Linear layers of any kind with the same input: their outputs, one after the other."""

    def __init__(self, linears: tuple[nn.Module, ...]):
        super().__init__()
        self.linears = nn.ModuleList(linears)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([linear(x) for linear in self.linears], -1)


def joined(*linears: nn.Module) -> nn.Module:
    """Linear layers with the same input as one: its output is theirs, one after the other.

    Dense weights are put into one; layers of any other kind, quantized ones say, stand beside each other.
    """
    dense = all(type(linear) in (nn.Linear, PackedLinear) for linear in linears)
    if not dense or len({linear.bias is None for linear in linears}) > 1:
        return Beside(linears)
    weight = torch.cat([linear.weight for linear in linears])
    one = nn.Linear(weight.shape[1], weight.shape[0], bias=linears[0].bias is not None, device="meta")
    one.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if one.bias is not None:
        one.bias = nn.Parameter(torch.cat([linear.bias for linear in linears]).detach(), requires_grad=False)
    return one


def norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Root-mean-square norm (Zhang and Sennrich 2019) in one operation."""
    return F.rms_norm(x, weight.shape, weight, epsilon)


class FusedLayer(nn.Module):
    """One transformer layer; x is (batch_size * n, hidden)."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        a, m = layer.self_attn, layer.mlp
        norms = layer.input_layernorm, layer.post_attention_layernorm
        self.norms = [(n.weight.detach(), n.variance_epsilon) for n in norms]
        self.size, self.scale = a.head_dim, a.scaling
        self.heads, self.kv_heads = (
            p.out_features // a.head_dim for p in (a.q_proj, a.k_proj)
        )  # its own share of them
        self.qkv, self.out = joined(a.q_proj, a.k_proj, a.v_proj), a.o_proj
        self.gate_up, self.down = joined(m.gate_proj, m.up_proj), m.down_proj
        self.head_norm = None  # Qwen3's, of each query and key: (heads + kv_heads, head_dim)
        if hasattr(a, "q_norm"):
            weights = a.q_norm.weight.expand(self.heads, -1), a.k_norm.weight.expand(self.kv_heads, -1)
            self.head_norm = torch.cat(weights).detach(), a.q_norm.variance_epsilon

    def forward(
        self,
        x: torch.Tensor,
        batch_size: int,
        cos: torch.Tensor,
        sin: torch.Tensor,
        cache: KVCache,
        place: int,
        mask: torch.Tensor | None,
        causal: bool,
    ) -> torch.Tensor:
        n, turned, group = len(x) // batch_size, self.heads + self.kv_heads, self.heads // self.kv_heads
        qkv = self.qkv(norm(x, *self.norms[0])).view(batch_size, n, turned + self.kv_heads, self.size)
        qk = qkv[:, :, :turned]
        if self.head_norm:
            weight, epsilon = self.head_norm
            qk = F.rms_norm(qk, (self.size,), None, epsilon) * weight
        qk = torch.addcmul(qk * cos, qk.roll(self.size // 2, -1), sin).transpose(1, 2)
        query = qk[:, : self.heads]
        keys, values = cache.update(qk[:, self.heads :], qkv[:, :, turned:].transpose(1, 2), place)
        if causal:
            a = F.scaled_dot_product_attention(
                query, keys, values, is_causal=True, scale=self.scale, enable_gqa=group > 1
            )
        else:  # heads that share keys are taken for further tokens of one head (grouped_attention.py)
            query = together(query, self.kv_heads)
            a = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=self.scale)
        a = a.reshape(batch_size, self.heads, n, self.size).transpose(1, 2).reshape(len(x), -1)
        x = x + self.out(a)
        gate, up = self.gate_up(norm(x, *self.norms[1])).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def check_kind(config) -> None:
    """CourseError where a model of this config is not built like Llama."""
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    layer_types = set(getattr(config, "layer_types", None) or ())
    windows = getattr(config, "sliding_window", None) and layer_types != {"full_attention"}
    if config.model_type not in KINDS or rope not in ROPES or windows or config.hidden_act != "silu":
        raise CourseError(
            f"The fused step is written for {', '.join(KINDS)} with {', '.join(ROPES)} rotary positions and "
            "without windows: leave this model as it is."
        )


def is_fusible(model: nn.Module) -> bool:
    """Whether the fused step is written for a model of this kind."""
    try:
        check_kind(model.config)
    except CourseError:
        return False
    return True


def too_long(positions: int) -> CourseError:
    """What to say where a token would stand after a model's last position."""
    return CourseError(
        f"This model has {positions} positions, and the text is longer: give a shorter prompt or a smaller "
        "max_new_tokens."
    )


class FusedLlama(nn.Module):
    """Takes a model's place in the decoders; its joined weights are copies of the model's."""

    returns_hidden = True  # as a decoder asks for

    def __init__(self, model):
        super().__init__()
        check_kind(model.config)
        config, inner = model.config, model.model
        self.config, self.generation_config = config, model.generation_config
        self.dtype, self.device = model.dtype, model.device
        self.embed, self.layers = inner.embed_tokens, nn.ModuleList(FusedLayer(layer) for layer in inner.layers)
        self.last_norm = inner.norm.weight.detach(), inner.norm.variance_epsilon
        self.group = self.layers[0].heads // self.layers[0].kv_heads
        self.lm_head, self.token_ids = model.get_output_embeddings(), getattr(model, "token_ids", None)
        angles = torch.arange(config.max_position_embeddings)[:, None] * inner.rotary_emb.inv_freq.float().cpu()
        cos, sin = angles.cos() * inner.rotary_emb.attention_scaling, angles.sin() * inner.rotary_emb.attention_scaling
        like = dict(device=model.device, dtype=model.dtype)
        self.cos = torch.cat([cos, cos], -1).to(**like)[:, None]  # (positions, 1, size)
        self.sin = torch.cat([-sin, sin], -1).to(**like)[:, None]  # signed: turning needs no negation
        self.eval()

    def _apply(self, *args, **kwargs):
        raise CourseError("A fused model stays as it was made: load the model in another dtype, and fuse that.")

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: torch.Tensor,
        past_key_values: KVCache | None = None,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        logits_to_keep: int = 0,
        **unused,
    ) -> Output:
        """As transformers' models, for input_ids (batch_size, n); a mask is additive, (batch_size or 1, 1, n, held)."""
        batch_size, n = input_ids.shape
        cache = KVCache.for_model(self, n, batch_size) if past_key_values is None else past_key_values
        start = cache.get_seq_length()
        self._check_length(start + n, position_ids)
        if position_ids is None:
            position_ids = torch.arange(start, start + n, device=self.device)[None]
        if attention_mask is None and start and n > 1:
            attention_mask = step_bias([Feed(0, range(n))], [start], None, self.dtype, self.device)
        mask = None if attention_mask is None else attention_mask.repeat(1, 1, self.group, 1)
        x, (cos, sin) = self.embed(input_ids.flatten()), (table[position_ids] for table in (self.cos, self.sin))
        for place, layer in enumerate(self.layers):
            x = layer(x, batch_size, cos, sin, cache, place, mask, mask is None and n > 1)
        hidden = norm(x, *self.last_norm).view(batch_size, n, -1)
        hidden = hidden[:, -logits_to_keep:] if logits_to_keep else hidden
        return Output(self.lm_head(hidden), hidden)

    def _check_length(self, length: int, position_ids: torch.Tensor | None) -> None:
        if length > len(self.cos) and (position_ids is None or int(position_ids.max()) >= len(self.cos)):
            raise too_long(len(self.cos))
