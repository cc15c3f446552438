"""LLaMA-Adapter from scratch: learned prompts that layers attend to, behind a gate that starts closed.

Zhang et al., "LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention", 2023 (notebook 03b).
Beside its own attention a layer asks K learned prompts: y = attention(x) + W_o (g softmax(q k^T / sqrt(d)) v), with
keys and values made of the prompts by the layer's own frozen matrices. The gate g is zero at first, so that training
begins with the model as it is. The paper adapts the topmost layers, and each head has a gate of its own, tanh of a
learned number; PEFT has one learned number a layer. Unlike LoRA it can't be merged into the weights: it costs time in
every step.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from helpers.errors import CourseError


def prompt_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    """What each query takes from the prompts, times its head's gate: like q.

    q is (batch, heads, tokens, head_dim), k and v are (batch, kv_heads, prompts,
    head_dim): neighbouring heads share keys and values. gates is (heads,).
    """
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return gates[:, None, None] * (weights @ v)


class PromptedAttention(nn.Module):
    """A frozen Llama attention, and `count` learned prompts beside it. With `per_head` each head has a gate, as in the
    paper; without it there is one, as in PEFT."""

    def __init__(self, attention: nn.Module, count: int, per_head: bool = False):
        super().__init__()
        self.attention, self.per_head = attention.requires_grad_(False), per_head
        projection = attention.q_proj
        self.heads = projection.out_features // attention.head_dim
        like = dict(device=projection.weight.device, dtype=torch.float32)
        self.prompts = nn.Parameter(torch.randn(1, count, projection.in_features, **like))
        self.gate = nn.Parameter(torch.zeros(self.heads if per_head else 1, **like))

    def gates(self) -> torch.Tensor:
        """How far each head is open, (heads,): 0 is shut."""
        return self.gate.tanh() if self.per_head else self.gate.expand(self.heads)

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
        gated = prompt_attention(q, k, v, self.gates().to(x.dtype))
        return own_output + own.o_proj(gated.transpose(1, 2).flatten(2)), weights


def rotated(q: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries (batch, heads, tokens, head_dim) turned by their positions (RoPE, Su et al. 2021)."""
    first, second = q.chunk(2, dim=-1)
    return q * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]


def install(model: nn.Module, count: int = 16, layers: int | None = None, per_head: bool = False) -> nn.Module:
    """Freeze the model and give its topmost `layers` layers (None: all) `count` learned prompts each, in place."""
    every = getattr(getattr(model, "model", None), "layers", None)
    if every is None or not hasattr(every[0], "self_attn") or not hasattr(every[0].self_attn, "q_proj"):
        raise CourseError("LLaMA-Adapter needs a model built like Llama: layers with self_attn and its q_proj.")
    num_layers = len(every) if layers is None else layers
    if count < 1 or not 1 <= num_layers <= len(every):
        raise CourseError(f"Give at least one prompt, and 1 to {len(every)} layers.")
    model.requires_grad_(False)
    for layer in every[-num_layers:]:
        layer.self_attn = PromptedAttention(layer.self_attn, count, per_head)
    return model


def adapted_layers(model: nn.Module) -> list[PromptedAttention]:
    """The adapted layers' attentions, from the lowest."""
    return [module for module in model.modules() if isinstance(module, PromptedAttention)]


@torch.no_grad()
def load_from_peft(model: nn.Module, folder: str | Path) -> nn.Module:
    """Give a model, in place, the prompts and gates that PEFT wrote into a folder.

    Raises:
        CourseError: there is no such adapter in the folder, or it is for another model.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
        count, num_layers = config["adapter_len"], config["adapter_layers"]
    except (OSError, ValueError, KeyError) as error:
        raise CourseError(f"There is no LLaMA-Adapter in {folder} ({type(error).__name__}): make it anew.") from None
    install(model, count, num_layers)
    parts: dict[tuple[int, str], torch.Tensor] = {}
    for name, tensor in tensors.items():
        found = re.search(r"layers\.(\d+)\..*adaption_(prompt|gate)$", name)
        if found:
            parts[int(found[1]), found[2]] = tensor
    attentions = adapted_layers(model)
    first = len(model.model.layers) - num_layers
    wanted = {(first + place, kind) for place in range(num_layers) for kind in ("prompt", "gate")}
    shapes = {tensor.shape for (_, kind), tensor in parts.items() if kind == "prompt"}
    if parts.keys() != wanted or shapes != {attentions[0].prompts.shape}:
        raise CourseError(f"The LLaMA-Adapter in {folder} is for another model: its layers or their sizes differ.")
    for place, attention in enumerate(attentions, first):
        attention.prompts.copy_(parts[place, "prompt"])
        attention.gate.copy_(parts[place, "gate"].flatten())
    return model
