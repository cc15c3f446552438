"""What makes a training step fast: one saving after the other, each timed on the same examples (notebook 03).

Every way learns the same tokens, so all have the same loss. A way adds one saving to the one before it: rows that
several examples share (packing.py), tables that are read once (packing.py), logits only where something is learned
(completion_trainer.py), attention by matrix products and compiled layers (fast_layers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from helpers.measuring.timing import take_turns
from helpers.models.sharing import sharing_copy
from helpers.training import script
from helpers.training.completion_trainer import logits_only_where
from helpers.training.completions import IGNORED, Encoded
from helpers.training.fast_layers import speed_up
from helpers.training.packing import Tree, collate, pack, trees_of

PLAIN, PACKED, SHARED, LEARNED, PRODUCTS, COMPILED = (
    "plain: one example a row",
    "+ several in a row",
    "+ tables shared",
    "+ logits of answers only",
    "+ attention by products",
    "+ layers compiled",
)
Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class StepTimes:
    """Of each way: the seconds of its steps (forward and backward), the loss, and the places of its rows, padding
    included. `num_tokens` are those of all examples, each with its whole prompt."""

    num_tokens: int
    seconds: dict[str, list[float]]
    losses: dict[str, float]
    places: dict[str, int]


def time_ways(
    model: nn.Module,
    groups: Sequence[Sequence[Encoded]],
    length: int,
    pad: int,
    *,
    rounds: int,
    compiled: bool,
    dtype: torch.dtype = torch.float32,
) -> StepTimes:
    """Time a step over all examples of the groups (those of a group share their tables), the ways taking turns.

    Args:
        model: in training mode, on its device; it is left as it is.
        length: of a packed row, in tokens.
        pad: the padding token's id.
        compiled: whether the last way is among them; it compiles for half a minute before its first step.
        dtype: of matrix products (autocast).
    """
    examples = [example for group in groups for example in group]
    batches = {
        PLAIN: collate([[Tree((example,))] for example in examples], pad),
        PACKED: collate(pack([Tree((example,)) for example in examples], length), pad),
        SHARED: collate(pack(trees_of(groups, length), length), pad),
    }
    batches |= dict.fromkeys((LEARNED, PRODUCTS, *((COMPILED,) if compiled else ())), batches[SHARED])
    models = dict.fromkeys((PLAIN, PACKED, SHARED, LEARNED), model)
    models |= {way: _sped_up(model, way == COMPILED) for way in (PRODUCTS, COMPILED) if way in batches}
    losses: dict[str, float] = {}

    def step(way: str) -> Callable[[], torch.Tensor]:
        network = models[way]
        batch = {name: tensor.to(next(network.parameters()).device) for name, tensor in batches[way].items()}
        return lambda: step_of(network, batch, way not in (PLAIN, PACKED, SHARED), dtype)

    def after(way: str, loss: torch.Tensor) -> None:
        losses[way] = loss.item()
        models[way].zero_grad()

    device = next(model.parameters()).device
    seconds = take_turns({way: step(way) for way in batches}, rounds, warmup=1, device=device, after=after)
    places = {way: batch["input_ids"].numel() for way, batch in batches.items()}
    return StepTimes(sum(len(example.ids) for example in examples), seconds, losses, places)


def step_of(model: nn.Module, batch: Batch, learned_only: bool, dtype: torch.dtype) -> torch.Tensor:
    """Forward and backward of the mean loss of all learned tokens; returns the loss."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    labels = batch["labels"][:, 1:]
    learned = labels != IGNORED
    with script.autocast(labels.device.type, dtype):
        if learned_only:
            with logits_only_where(learned, model):
                logits = model(**inputs, use_cache=False).logits
        else:
            logits = model(**inputs, use_cache=False).logits[:, :-1].flatten(0, 1)
    targets = labels[learned] if learned_only else labels.flatten()
    loss = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED)
    loss.backward()
    return loss.detach()


def _sped_up(model: nn.Module, compiled: bool) -> nn.Module:
    """A copy that shares the weights and trains by the faster ways."""
    twin = sharing_copy(model)
    speed_up(twin, compiled)
    return twin
