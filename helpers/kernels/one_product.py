"""Several products with the same input as one: what the fused step does with queries, keys and values (00c)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def one_product(x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """x (n, in) times each weight (out, in), in a single product: a list of (n, out).

    An engine joins the weights once, when it loads a model.
    """
    joined = torch.cat(list(weights))  # (all outs, in)
    return list((x @ joined.T).split([len(weight) for weight in weights], dim=-1))
