"""Each rank stores a part of every matrix, and gathers whole ones when it computes with them (notebook 06).

Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020; Zhao et al., "PyTorch
FSDP: Experiences on Scaling Fully Sharded Data Parallel", 2023. Every rank computes everything, each for texts of its
own. So a model fits that wouldn't, and no token comes sooner.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.parallel.heads import split_evenly


class _Piece(nn.Module):
    """Some rows of an embedding that is also the output layer."""

    def __init__(self, weight: torch.Tensor, tokens: range):
        super().__init__()
        self.weight, self.tokens = nn.Parameter(weight[tokens.start : tokens.stop].clone()), tokens

    def forward(self, x: torch.Tensor, look_up: bool) -> torch.Tensor:
        if not look_up:
            return F.linear(x, self.weight)
        here = (x >= self.tokens.start) & (x < self.tokens.stop)
        return F.embedding((x - self.tokens.start) * here, self.weight) * here[..., None]


class _LookUp(nn.Module):
    def __init__(self, pieces: nn.ModuleList):
        super().__init__()
        self.pieces = pieces

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return sum(piece(ids, True) for piece in self.pieces)


class _Logits(nn.Module):
    def __init__(self, pieces: nn.ModuleList):
        super().__init__()
        self.pieces = pieces

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([piece(x, False) for piece in self.pieces], -1)


def vocabulary_in_pieces(model: nn.Module, count: int) -> nn.ModuleList:
    """Cut the embedding that a small model shares with its output layer into `count` modules; changes the model. A
    module is gathered whole, and this is the largest of all. CourseError where the two aren't one."""
    weight = model.get_input_embeddings().weight
    if model.get_output_embeddings().weight is not weight:
        raise CourseError("Its embedding and its output layer are two: shard each of them by itself.")
    pieces = nn.ModuleList(_Piece(weight.detach(), tokens) for tokens in split_evenly(len(weight), count))
    model.set_input_embeddings(_LookUp(pieces))
    model.set_output_embeddings(_Logits(pieces))
    return pieces


def shard_fully(model: nn.Module, pieces: int = 0) -> nn.Module:
    """Shard each layer, and what is left, among all ranks; changes the model. A module
    is gathered when it is called, and given up behind it. With `pieces` an embedding
    that is also the output layer is cut into so many modules first."""
    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    units = list(vocabulary_in_pieces(model, pieces)) if pieces else []
    for unit in [*model.model.layers, *units]:
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    return fully_shard(model, mesh=mesh, reshard_after_forward=True)


def training_bytes(parameters: float, ranks: int, stage: int) -> float:
    """Bytes that training takes on each rank in float32, with Adam: a weight, a gradient
    and two moments for each parameter, 4 bytes each. Stage 0 is plain data parallelism;
    ZeRO's stage 1 shards the moments, 2 the gradients, too, 3 (FSDP) the weights, too."""
    weights, gradients, moments = 4 * parameters, 4 * parameters, 8 * parameters
    shares = [1 / ranks if stage >= least else 1 for least in (3, 2, 1)]
    return weights * shares[0] + gradients * shares[1] + moments * shares[2]


def local_bytes(model: nn.Module) -> int:
    """Bytes of parameters that this rank stores."""
    parameters = (p.to_local() if isinstance(p, DTensor) else p for p in model.parameters())
    return sum(p.nbytes for p in parameters)


class Gathered:
    """The most bytes of gathered parameters that lie beside the sharded ones: looked at in every module that has
    parameters of its own, when it is called. (The buffer that they were sent in isn't among them.)"""

    def __init__(self, model: nn.Module):
        self.model, self.peak, self._own = model, 0, 0
        self._own = self._whole()  # what isn't sharded at all
        for module in model.modules():
            if next(module.parameters(recurse=False), None) is not None:
                module.register_forward_pre_hook(self._look)

    def _look(self, module: nn.Module, inputs: tuple) -> None:
        self.peak = max(self.peak, self._whole())

    def _whole(self) -> int:
        return sum(p.nbytes for p in self.model.parameters() if not isinstance(p, DTensor)) - self._own


def train(model: nn.Module, batches: list[torch.Tensor], learning_rate: float, ranks: int = 1) -> list[float]:
    """A step of SGD for each batch of token ids (texts, n), of which each of the ranks takes as many. The loss is the
    mean over all texts, and so is the gradient: FSDP averages over ranks. Returns the losses."""
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=learning_rate), []
    for batch in batches:
        mine = batch.chunk(ranks)[dist.get_rank()] if ranks > 1 else batch
        loss = model(input_ids=mine, labels=mine, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach() / ranks
        if ranks > 1:
            dist.all_reduce(mean)
        losses.append(mean.item())
    return losses
