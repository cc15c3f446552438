"""Each rank holds a part of every matrix, and all of them compute each token together (notebook 06).

Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism", 2019. A matrix
that is cut by its rows gives each rank some of the outputs; the next one, cut by its columns, takes just these as its
inputs and gives a part of each sum. One all-reduce adds the parts up: two for a layer, and one more for
the embedding. At the end logits are gathered.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from helpers.errors import CourseError
from helpers.kernels.grouped_attention import grouped_attention
from helpers.parallel.heads import HeadShard, shard_heads, split_evenly

ATTENTION = "sharded_heads"


def partial_products(x: Tensor, weight: Tensor, ranks: int) -> list[Tensor]:
    """What each rank adds to W x for x (n, in) and W (out, in), if it holds some columns
    of W and the numbers of x that they read: (n, out) each."""
    columns = split_evenly(weight.shape[1], ranks)
    return [x[:, mine] @ weight[:, mine].T for mine in columns]


def bytes_reduced(layers: int, hidden: int, bytes_per_number: int) -> int:
    """Bytes that all-reduces add up in a decode step of one token: two vectors of
    `hidden` numbers in each layer, and one for the embedding."""
    return (2 * layers + 1) * hidden * bytes_per_number


def column_parallel(linear: nn.Linear, outputs: Sequence[int]) -> nn.Linear:
    """The rows of W that make these outputs: each rank computes its own, and nothing is
    sent. (Megatron writes x W, so that these are columns there.)"""
    mine = torch.as_tensor(outputs)
    biased = linear.bias is not None
    part = nn.Linear(linear.in_features, len(mine), biased, device="meta")
    part.weight = nn.Parameter(linear.weight[mine].clone(), requires_grad=False)
    if biased:
        part.bias = nn.Parameter(linear.bias[mine].clone(), requires_grad=False)
    return part


class RowParallel(nn.Module):
    """The columns of W that read these inputs. Each rank has a part of every sum, and
    an all-reduce adds them up."""

    def __init__(self, linear: nn.Linear, inputs: Sequence[int]):
        super().__init__()
        mine = torch.as_tensor(inputs)
        self.weight = nn.Parameter(linear.weight[:, mine].clone(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight)
        dist.all_reduce(y)
        return y if self.bias is None else y + self.bias


class VocabularyParallelEmbedding(nn.Module):
    """The rows of some tokens. Others look up zeros, and an all-reduce puts in what
    another rank has found."""

    def __init__(self, weight: nn.Parameter, tokens: range):
        super().__init__()
        self.weight, self.tokens = weight, tokens

    def forward(self, ids: Tensor) -> Tensor:
        here = (ids >= self.tokens.start) & (ids < self.tokens.stop)
        x = F.embedding((ids - self.tokens.start) * here, self.weight) * here[..., None]
        dist.all_reduce(x)
        return x


class VocabularyParallelHead(nn.Module):
    """The logits of some tokens; an all-gather puts them side by side."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, vocabulary: int):
        super().__init__()
        self.weight, self.bias, self.vocabulary = weight, bias, vocabulary

    def forward(self, x: Tensor) -> Tensor:
        logits = F.linear(x, self.weight, self.bias)
        parts = logits.new_empty(dist.get_world_size(), *logits.shape)
        dist.all_gather_single(parts.flatten(0, 1), logits)
        return torch.cat(parts.unbind(0), -1)[..., : self.vocabulary]


def sharded_attention(module, query, key, value, attention_mask=None, **options):
    """Attention of a rank's heads, each with its own key-value head; the arguments are as transformers gives them."""
    places = module.kv_of_head
    return grouped_attention(module, query, key[:, places], value[:, places], attention_mask, **options)


AttentionInterface.register(ATTENTION, sharded_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def parallelize(model: nn.Module, rank: int, ranks: int) -> nn.Module:
    """Keep of a decoder with Llama's layers what this rank holds; changes the model. Then all ranks call it with the
    same tokens, and each gets all logits.

    Raises:
        CourseError: its layers have other names, or there are more ranks than heads.
    """
    config = model.config
    layers = getattr(getattr(model, "model", None), "layers", ())
    if not layers or not all(hasattr(one.self_attn, "q_proj") and hasattr(one.mlp, "gate_proj") for one in layers):
        raise CourseError("Only layers like Llama's are cut into parts here: q_proj, k_proj, v_proj, gate_proj, ...")
    shard = shard_heads(config.num_attention_heads, config.num_key_value_heads, ranks)[rank]
    middle = split_evenly(config.intermediate_size, ranks)[rank]
    for layer in layers:
        _cut_attention(layer.self_attn, shard)
        mlp = layer.mlp
        mlp.gate_proj, mlp.up_proj = (column_parallel(each, middle) for each in (mlp.gate_proj, mlp.up_proj))
        mlp.down_proj = RowParallel(mlp.down_proj, middle)
    _cut_vocabulary(model, rank, ranks)
    config._attn_implementation = ATTENTION
    return model


def _cut_attention(attention: nn.Module, shard: HeadShard) -> None:
    size = attention.head_dim
    numbers = {
        name: range(heads.start * size, heads.stop * size)
        for name, heads in (("q_proj", shard.heads), ("k_proj", shard.kv_heads), ("v_proj", shard.kv_heads))
    }
    for name, mine in numbers.items():
        setattr(attention, name, column_parallel(getattr(attention, name), mine))
    attention.o_proj = RowParallel(attention.o_proj, numbers["q_proj"])
    attention.kv_of_head = slice(None) if shard.even else shard.kv_of_head  # neighbours share without a copy


def _cut_vocabulary(model: nn.Module, rank: int, ranks: int) -> None:
    """Equal parts, the last one filled up with zeros: an all-gather takes parts of one size."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    vocabulary = len(embedding.weight)
    size = -(-vocabulary // ranks)
    mine = range(rank * size, (rank + 1) * size)

    def part(weight: Tensor) -> nn.Parameter:
        kept = weight[mine.start : mine.stop]
        filled = F.pad(kept, (*[0, 0] * (kept.dim() - 1), 0, size - len(kept)))
        return nn.Parameter(filled.clone(), requires_grad=False)

    of_embedding = part(embedding.weight)
    of_head = of_embedding if head.weight is embedding.weight else part(head.weight)
    bias = None if head.bias is None else part(head.bias)
    model.set_input_embeddings(VocabularyParallelEmbedding(of_embedding, mine))
    model.set_output_embeddings(VocabularyParallelHead(of_head, bias, vocabulary))
