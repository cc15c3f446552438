"""Training in half precision: float32 weights are kept, half-precision ones compute, the loss is scaled: notebook 01.

Micikevicius et al., "Mixed Precision Training", 2018. Two things go wrong without it: gradients too small for float16
become 0, which a factor on the loss cures; and updates too small beside a weight are rounded away, which is why the
weights themselves stay in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from helpers.decoding.masks import additive
from helpers.errors import CourseError
from helpers.training.completions import IGNORED
from helpers.weights.precision.emulation import emulated

Batch = dict[str, torch.Tensor]  # of packing.collate


@dataclass
class LossScaler:
    """Dynamic loss scaling: halve the scale when a gradient overflows, and double it
    after `patience` steps without."""

    scale: float = 2.0**16
    patience: int = 2000
    good_steps: int = 0

    def update(self, finite: bool) -> None:
        """Tell it of each step whether all gradients were finite (those of other steps
        are thrown away)."""
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.scale /= 2
        elif self.good_steps == self.patience:
            self.scale, self.good_steps = self.scale * 2, 0


def largest_scale(largest_gradient: float, largest_number: float) -> float:
    """The largest power of two by which gradients can be multiplied, if a format's
    numbers end at `largest_number`."""
    if largest_gradient <= 0:
        raise CourseError("All gradients are 0: no scale is too large for them.")
    return 2.0 ** math.floor(math.log2(largest_number / largest_gradient))


@dataclass(frozen=True)
class TrainStep:
    """One step: the loss before it, the loss scale, whether it was skipped for an overflow, and the share of the weight
    gradients that was 0."""

    loss: float
    scale: float
    skipped: bool
    zeros: float


def batch_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The mean cross-entropy of the learned tokens of packed rows (packing.py)."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    if model.config._attn_implementation == "eager":  # which adds the mask to its scores
        inputs["attention_mask"] = additive(inputs["attention_mask"], model.dtype)
    logits = model(**inputs, use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED)


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    lr: float,
    autocast: torch.dtype | None = None,
    emulate: torch.dtype | None = None,
    scaler: LossScaler | None = None,
    pieces: int = 1,
) -> list[TrainStep]:
    """Train a float32 model in place with AdamW, a step a batch.

    `autocast` computes in that dtype; `emulate` computes in float32, but rounds weights, activations and gradients.
    `pieces`: each batch counts as one of so many that make a large one: its loss is divided by them, and the optimizer
    gets the sum, as if all of them had been alike.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr, (0.9, 0.95), weight_decay=0.0)
    steps = []
    for batch in batches:
        scale = scaler.scale if scaler else 1.0
        with emulated(model, emulate) if emulate else nullcontext():
            with torch.autocast(model.device.type, autocast) if autocast else nullcontext():
                loss = batch_loss(model, batch)
            (loss / pieces * scale).backward()
        if emulate:
            for p in parameters:
                p.grad = p.grad.to(emulate).float()
        finite = all(p.grad.isfinite().all() for p in parameters)
        zeros = sum((p.grad == 0).sum().item() for p in parameters) / sum(p.numel() for p in parameters)
        if finite:
            for p in parameters:
                p.grad *= pieces / scale
            optimizer.step()
        optimizer.zero_grad()
        if scaler:
            scaler.update(finite)
        steps.append(TrainStep(loss.item(), scale, not finite, zeros))
    return steps


def swallowed(before: Iterable[torch.Tensor], after: Iterable[torch.Tensor], dtype: torch.dtype) -> float:
    """The share of the changes from `before` to `after` (float32 weights) that are lost if the weights are kept in
    `dtype`: too small beside the weight, rounded away."""
    lost = changed = 0
    for old, new in zip(before, after, strict=True):
        low = old.to(dtype)
        updated = (low.float() + (new - old)).to(dtype)
        lost += ((updated == low) & (new != old)).sum().item()
        changed += (new != old).sum().item()
    return lost / changed if changed else 0.0
