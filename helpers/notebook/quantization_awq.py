"""AWQ's search on one layer, drawn (notebook 02)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from helpers.notebook.quantization_charts import draw_errors
from helpers.weights.quantization.calibration import InputSizes
from helpers.weights.quantization.integer import Group

Search = Callable[..., tuple[float, torch.Tensor, dict[float, float]]]


def draw_search(search: Search, weight: torch.Tensor, seen: InputSizes, group: int) -> None:
    """The error of a layer's output by alpha, beside that of plain rounding, in 4 bits with groups and in 3 and 2 bits
    with a scale a channel."""
    kinds: dict[str, tuple[int, Group]] = {"3 bits, a channel": (3, "channel"), "2 bits, a channel": (2, "channel")}
    if weight.shape[1] % group == 0:
        kinds = {f"4 bits, groups of {group}": (4, group)} | kinds
    series = {}
    for name, (bits, of_group) in kinds.items():
        alpha, scale, errors = search(weight, seen.mean_abs, seen.matrix, bits, of_group)
        plain = errors[0.0]
        series[name] = [(a, error / plain) for a, error in errors.items()]
        print(f"{name}: alpha {alpha:.2f} leaves {errors[alpha] / plain:.0%} of plain rounding's error,", end=" ")
        print(f"with scales from {scale.min():.2f} to {scale.max():.2f}")
    draw_errors(
        series,
        title="AWQ tries powers of the mean input",
        x_label="alpha (power)",
        y_label="squared error of the output (alpha 0 = 1)",
    )
