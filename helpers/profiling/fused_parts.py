"""What each part of the fused step saves: as the library has it, and as the fused step has it (notebook 00c)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from helpers.kernels.fused_llama import FusedLlama, norm
from helpers.measuring.timing import take_turns


@torch.inference_mode()
def part_seconds(model, fused: FusedLlama, *, num_tokens: int = 1, rounds: int = 15) -> dict[str, tuple[float, float]]:
    """Seconds a layer of each part, (the model's own way, the fused way), the median of `rounds`.

    Each call goes through all layers, so that weights come from memory as they do in a step. Give a model with packed
    linears: then only the fusing differs.
    """
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    like = dict(dtype=model.dtype, device=model.device)
    x = torch.randn(num_tokens, model.config.hidden_size, **like)
    first = fused.layers[0]
    size, heads, kv_heads = first.size, first.heads, first.kv_heads
    qk = torch.randn(1, num_tokens, heads + kv_heads, size, **like)
    query, key = qk[:, :, :heads].transpose(1, 2), qk[:, :, heads:].transpose(1, 2)
    cos, sin = torch.randn(2, 1, num_tokens, size, **like)
    wide_cos, wide_sin = cos[:, :, None], sin[:, :, None]

    def own_norm(layer) -> None:
        layer.input_layernorm(x)

    def own_qkv(layer) -> None:
        attention = layer.self_attn
        attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)

    def own_gate_up(layer) -> None:
        layer.mlp.gate_proj(x), layer.mlp.up_proj(x)

    def own_rotary(layer) -> None:
        apply_rotary_pos_emb(query, key, cos, sin)

    def fused_norm(layer) -> None:
        norm(x, *layer.norms[0])

    def fused_rotary(layer) -> None:
        torch.addcmul(qk * wide_cos, qk.roll(size // 2, -1), wide_sin)

    parts: dict[str, tuple[Callable, Callable]] = {
        "norm": (own_norm, fused_norm),
        "queries, keys, values": (own_qkv, lambda layer: layer.qkv(x)),
        "rotary positions": (own_rotary, fused_rotary),
        "gate and up": (own_gate_up, lambda layer: layer.gate_up(x)),
    }
    sides = {"own": model.model.layers, "fused": fused.layers}
    arms = {
        (part, side): partial(_through, way, sides[side])
        for part, both in parts.items()
        for side, way in zip(sides, both)
    }
    seconds = take_turns(arms, rounds, warmup=1, device=model.device)
    layers = len(fused.layers)
    return {part: tuple(median(seconds[part, side]) / layers for side in sides) for part in parts}


def _through(way: Callable, layers) -> None:
    for layer in layers:
        way(layer)
