"""Activations with outliers, found and taken apart: what LLM.int8 is for (notebook 02)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from torch import nn

from helpers.notebook import plots
from helpers.notebook.diagrams.outlier_columns import draw_outlier_columns
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.weights.precision.ranges import recording
from helpers.weights.quantization.calibration import InputSizes

THRESHOLD = 6.0  # the paper's


def draw_outliers(results: Results, sizes: Mapping[str, InputSizes], threshold: float = THRESHOLD) -> str:
    """The largest value of each input column, in the layer where outliers stand out most, and in how many layers there
    are some; returns that layer's name, and writes the share of columns that are outliers."""
    stand_out = {name: (one.absmax.max() / one.absmax.median().clamp(min=1e-12)).item() for name, one in sizes.items()}
    name = max(stand_out, key=stand_out.get)
    absmax = sizes[name].absmax.cpu()
    large = absmax >= threshold
    _, ax = plt.subplots(figsize=(9, 3.4))
    places, least = torch.arange(len(absmax)), absmax[absmax > 0].min().item() / 2
    for chosen, color, label in ((~large, 2, "columns"), (large, 1, f"outliers: {threshold:g} or more somewhere")):
        if chosen.any():
            ax.vlines(places[chosen], least, absmax[chosen], color=plots.COLORS[color], linewidth=1.2, label=label)
    ax.axhline(threshold, color="#555555", linestyle="--", linewidth=0.9)
    ax.set(title=f"What {name} reads: the largest value of each column")
    ax.set(xlabel="input column (count)", ylabel="largest value (absolute)", xlim=(-5, len(absmax) + 5))
    ax.set_yscale("log")  # the largest would hide all others
    ax.legend(fontsize=9, loc="upper left")
    counts = {layer: int((one.absmax >= threshold).sum()) for layer, one in sizes.items()}
    columns = sum(len(one.absmax) for one in sizes.values())
    share = sum(counts.values()) / columns
    results.metric("quantization.outlier_columns", share, "share", n=columns)
    having = sum(map(bool, counts.values()))
    text = (
        f"{having} of {len(sizes)} linear layers read outliers, {share:.2%} of all columns. Where they stand out most, "
        f"in {name}, the largest value is {absmax.max():.0f}, {stand_out[name]:.0f} times the middle column's."
    )
    say(text)
    return name


def inputs_of(model: nn.Module, name: str, tokens: Sequence[int]) -> torch.Tensor:
    """What the linear layer of that name reads while the model reads these tokens: (tokens, in)."""
    with torch.no_grad(), recording(model) as seen:
        model(torch.tensor([list(tokens)], device=model.device), use_cache=False)
    return seen.activations[f"{name}, in"][0].float()


def draw_split(x: torch.Tensor, threshold: float = THRESHOLD, features: int = 10, tokens: int = 4) -> None:
    """LLM.int8's picture with a few real tokens, and a few of their columns: the two largest and others."""
    absmax = x.abs().amax(0)
    largest = absmax.argsort(descending=True)[:2].tolist()
    others = [place for place in range(x.shape[1]) if place not in largest and absmax[place] < threshold]
    chosen = sorted([*largest, *others[: features - len(largest)]])
    token = int(x[:, largest[0]].abs().argmax())
    start = max(0, min(token, len(x) - tokens))
    draw_outlier_columns(x[start : start + tokens][:, chosen].tolist(), threshold)
