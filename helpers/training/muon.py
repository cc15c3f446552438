"""Muon: momentum whose matrix updates are made orthogonal (Jordan et al. 2024).

torch.optim.Muon is the same algorithm but always iterates in bfloat16, ten times slower on a CPU that emulates it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def orthogonalize(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest (semi-)orthogonal matrix, by a quintic Newton-Schulz iteration; singular values end near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """For 2-D weights; `lr` is in units of the weights' root mean square, about ten times AdamW's.

    `dtype` is what the iteration runs in: it needs no precision, so bfloat16 wherever the machine multiplies it faster.
    """

    def __init__(
        self,
        params,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                buffer = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonalize(weight.grad.lerp(buffer, group["momentum"]).to(self.dtype))
                scale = max(1, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def muon_and_adam(
    model: nn.Module, muon_lr: float, adam_lr: float, dtype: torch.dtype, more: Iterable[nn.Parameter] = ()
) -> list[torch.optim.Optimizer]:
    """Muon for a model's matrices; AdamW for its embeddings, its vectors and `more`."""
    named = list(model.named_parameters())
    matrices = [p for n, p in named if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in named if p.ndim != 2 or "embed" in n]
    groups = [{"params": given} for given in (others, list(more)) if given]
    return [Muon(matrices, lr=muon_lr, dtype=dtype), torch.optim.AdamW(groups, adam_lr, (0.9, 0.95), weight_decay=0.0)]
