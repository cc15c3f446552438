"""Whole attention heads and MLP channels are removed, so that matrices get smaller (notebook 04).

Ma et al., "LLM-Pruner: On the Structural Pruning of Large Language Models", 2023. What belongs together goes together:
a channel of the MLP is a row of gate_proj, one of up_proj and a column of down_proj; a KV head is rows of k_proj and
v_proj, the rows of q_proj of all heads that share it, and the columns of o_proj that read these. A group matters as
much as the loss would change without it, to first order: the sum of |weight x gradient| over its weights.

Every layer loses as many, so that one configuration describes them all, and every library loads the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.models.sharing import sharing_copy
from helpers.weights.precision.ranges import blocks_of

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
Pairs = Sequence[tuple[Sequence[int], Sequence[int]]]  # a prompt's token ids, its answer's


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """How much the loss would change without each weight, to first order: float32."""
    return (weight.float() * gradient.float()).abs()


def channel_importance(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
) -> Tensor:
    """How much each channel of an MLP matters, (channels,). `weights` are gate and up
    (channels, in) and down (out, channels), `gradients` those of the loss by them."""
    gate, up, down = map(taylor, weights, gradients)
    return gate.sum(1) + up.sum(1) + down.sum(0)


def kv_head_importance(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    head_dim: int,
) -> Tensor:
    """How much each KV head matters, with the heads that share it: (kv_heads,).

    `weights` are q (heads * head_dim, in), k and v (kv_heads * head_dim, in) and o (out,
    heads * head_dim), `gradients` those of the loss by them. Heads that share a KV head
    are neighbours.
    """
    q, k, v, o = map(taylor, weights, gradients)
    kv_heads = len(k) // head_dim
    parts = q.sum(1), k.sum(1), v.sum(1), o.sum(0)  # one number for each row, or column
    return sum(part.view(kv_heads, -1).sum(1) for part in parts)


@dataclass(frozen=True)
class Importance:
    """How much each KV head (layers, kv_heads) and each channel (layers, channels) matters, float32."""

    kv_heads: Tensor
    channels: Tensor


def importance(model: nn.Module, pairs: Pairs, of_kv_heads: Callable[..., Tensor] = kv_head_importance) -> Importance:
    """Of all KV heads and channels, by the gradients of the loss of answers that follow their prompts; `of_kv_heads` is
    what makes the importance of heads of them.

    Raises:
        CourseError: there is no pair; the model isn't built like Llama.
    """
    check_structure(model)
    if not pairs:
        raise CourseError("Importance needs the loss of an answer: give one pair of prompt and answer at least.")
    weights = [linear.weight for block in blocks_of(model) for linear in _linears(block)]
    gradients = _gradients(model, pairs, weights)
    seven, split = len(ATTENTION + MLP), len(ATTENTION)
    layers = [(weights[i : i + seven], gradients[i : i + seven]) for i in range(0, len(weights), seven)]
    size = head_dim_of(model)
    with torch.no_grad():
        return Importance(
            torch.stack([of_kv_heads(w[:split], g[:split], size) for w, g in layers]),
            torch.stack([channel_importance(w[split:], g[split:]) for w, g in layers]),
        )


def _gradients(model: nn.Module, pairs: Pairs, weights: Sequence[nn.Parameter]) -> list[Tensor]:
    """Of the sum of all answers' losses, by each of the weights, in float32."""
    totals = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
    trained = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            for prompt, answer in pairs:
                for total, gradient in zip(totals, torch.autograd.grad(_loss(model, prompt, answer), weights)):
                    total += gradient
    finally:
        for weight, was in zip(weights, trained):
            weight.requires_grad_(was)
    return totals


def _loss(model: nn.Module, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """The mean loss of the answer's tokens."""
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    logits = model(input_ids=ids, logits_to_keep=len(answer) + 1, use_cache=False).logits[0, :-1]
    return F.cross_entropy(logits.float(), ids[0, -len(answer) :])


@dataclass(frozen=True)
class Plan:
    """KV heads and MLP channels that stay in each layer, and the share of the layers' weights that goes with the
    others."""

    kv_heads: int
    channels: int
    removed: float


def plan(model: nn.Module, share: float, *, heads: bool = True, multiple: int = 32) -> Plan:
    """What stays where about `share` of the weights in the blocks' matrices goes: with `heads` that share of the KV
    heads, in whole ones, and channels for the rest; without, channels alone. `multiple` divides the channels that stay.

    Raises:
        CourseError: so much can't be removed; the model isn't built like Llama.
    """
    check_structure(model)
    q, k, _, _, gate, _, _ = _linears(blocks_of(model)[0])
    kv_heads, channels, hidden = k.out_features // head_dim_of(model), gate.out_features, gate.in_features
    of_head = 2 * (q.out_features + k.out_features) // kv_heads * hidden
    of_channel = 3 * hidden
    total = kv_heads * of_head + channels * of_channel
    gone = min(round(share * kv_heads), kv_heads - 1) if heads else 0
    wanted = channels - (share * total - gone * of_head) / of_channel
    kept = min(channels, multiple * round(wanted / multiple))
    if not 0 < share < 1 or kept < multiple:
        raise CourseError(f"A share of {share} can't be removed from this model: give less, but more than 0.")
    return Plan(kv_heads - gone, kept, (gone * of_head + (channels - kept) * of_channel) / total)


@torch.no_grad()
def smaller(model: nn.Module, matters: Importance, stays: Plan) -> nn.Module:
    """A copy with smaller matrices: in each layer the KV heads and channels stay that matter most, in their order.

    What isn't cut shares its weights with the model. Saved, it loads as any other model.
    """
    check_structure(model)
    model = sharing_copy(model)
    config, size = model.config, head_dim_of(model)
    group = config.num_attention_heads // config.num_key_value_heads
    for block, heads, channels in zip(blocks_of(model), matters.kv_heads, matters.channels, strict=True):
        kept = most_important(heads, stays.kv_heads)
        shared, turned = places(kept, size), places(kept, group * size)
        attention, mlp = block.self_attn, block.mlp
        attention.q_proj = cut(attention.q_proj, rows=turned)
        attention.k_proj, attention.v_proj = (cut(p, rows=shared) for p in (attention.k_proj, attention.v_proj))
        attention.o_proj = cut(attention.o_proj, columns=turned)
        kept = most_important(channels, stays.channels)
        mlp.gate_proj, mlp.up_proj = (cut(p, rows=kept) for p in (mlp.gate_proj, mlp.up_proj))
        mlp.down_proj, mlp.intermediate_size = cut(mlp.down_proj, columns=kept), stays.channels
    config.num_key_value_heads, config.num_attention_heads = stays.kv_heads, stays.kv_heads * group
    config.head_dim, config.intermediate_size = size, stays.channels
    return model


def most_important(importance: Tensor, count: int) -> Tensor:
    """The places of the `count` largest of (n,), from left to right."""
    return importance.topk(count).indices.sort().values


def places(kept: Tensor, width: int) -> Tensor:
    """Rows (or columns) of parts that are `width` rows each, for the parts that are kept."""
    return (kept[:, None] * width + torch.arange(width, device=kept.device)).flatten()


def cut(linear: nn.Linear, *, rows: Tensor | None = None, columns: Tensor | None = None) -> nn.Linear:
    """A linear layer with these of its outputs, or of its inputs; weight and bias are copies."""
    weight = linear.weight if rows is None else linear.weight[rows]
    weight = weight if columns is None else weight[:, columns]
    small = nn.Linear(weight.shape[1], weight.shape[0], bias=linear.bias is not None, device="meta")
    small.weight = nn.Parameter(weight.detach().clone())
    if linear.bias is not None:
        small.bias = nn.Parameter((linear.bias if rows is None else linear.bias[rows]).detach().clone())
    return small


def head_dim_of(model: nn.Module) -> int:
    """Numbers in a head."""
    return blocks_of(model)[0].self_attn.head_dim


def check_structure(model: nn.Module) -> None:
    """Refuse a model whose heads and channels don't stand where they do in Llama."""
    block = blocks_of(model)[0]
    parts = [(getattr(block, "self_attn", None), ATTENTION), (getattr(block, "mlp", None), MLP)]
    if not all(isinstance(getattr(part, name, None), nn.Linear) for part, names in parts for name in names):
        raise CourseError(
            f"Heads and channels are removed from models with {', '.join(ATTENTION + MLP)}, such as Llama, Mistral and "
            f"Qwen: a model of the kind {model.config.model_type} can only lose single weights."
        )


def _linears(block: nn.Module) -> list[nn.Linear]:
    """The seven of a block: those of ATTENTION, then those of MLP."""
    return [getattr(block.self_attn, n) for n in ATTENTION] + [getattr(block.mlp, n) for n in MLP]
