"""What layers read, and how far pruning changes what they give (notebook 04)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from helpers.notebook import plots
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.weights.quantization.calibration import InputSizes, observe
from helpers.weights.quantization.quality import layer_errors


def input_norms(seen: Mapping[str, InputSizes]) -> dict[str, Tensor]:
    """By the layer's name, the root mean square of each of its inputs (in,); of layers that share an input (q, k, v)
    the first alone."""
    first = {id(sizes): name for name, sizes in reversed(seen.items())}
    return {name: (seen[name].squares / seen[name].count).sqrt() for name in seen if name in first.values()}


def show_outliers(results: Results, model: nn.Module, prompts: Sequence[Sequence[int]]) -> None:
    """How much larger than the middle one the largest input of each layer is, from the first layer on, and all inputs
    of the layer where that is worst. Writes the worst."""
    norms = input_norms(observe(model, prompts))
    peaks = {name: (norm.max() / norm.median()).item() for name, norm in norms.items()}
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    kinds = list(dict.fromkeys(name.split(".")[-1] for name in peaks))
    for place, kind in enumerate(kinds):
        ratios = [ratio for name, ratio in peaks.items() if name.split(".")[-1] == kind]
        look = {"marker": plots.MARKERS[place % 5], "color": plots.COLORS[place % 5], "linestyle": ""}
        left.plot(range(1, len(ratios) + 1), ratios, label=f"read by {kind}", markersize=5, **look)
    left.set(title="The largest input of each layer", xlabel="layer (count)", yscale="log")
    left.set(ylabel="largest over the middle one (ratio)")
    left.legend(fontsize=9)
    worst = max(peaks, key=peaks.get)
    norm = norms[worst].cpu()
    right.plot(norm.numpy(), linewidth=0.7, marker="", color=plots.COLORS[0])
    right.set(title=f"All inputs of {_short(worst)}", xlabel="input (number)", ylabel="root mean square (units)")
    results.metric("pruning.largest_input_over_median", peaks[worst], "ratio", n=len(prompts))
    ordered = sorted(peaks, key=peaks.get, reverse=True)[:3]
    listed = [f"input {norms[name].argmax()} of {_short(name)} ({peaks[name]:.0f} times)" for name in ordered]
    middle = median(peaks.values())
    say(
        f"Largest over the middle one: {', '.join(listed)}; in the middle layer it is {middle:.1f} times.",
        "A weight that multiplies such an input counts so many times as much as its size says."
        if middle > 3
        else "In most layers all inputs are about as large: there sizes say nearly as much as Wanda's scores.",
    )


def show_layer_errors(
    results: Results, dense: nn.Module, pruned: Mapping[str, nn.Module], prompts: Sequence[Sequence[int]]
) -> None:
    """How much of each layer's output pruning changes, on the dense model's inputs, a line for each method."""
    errors = {name: layer_errors(model, dense, prompts) for name, model in pruned.items()}
    _, ax = plt.subplots(figsize=(9, 3.2))
    for place, (name, by_layer) in enumerate(errors.items()):
        look = {"marker": plots.MARKERS[place], "color": plots.COLORS[place], "linestyle": ""}
        ax.plot(range(len(by_layer)), [100 * e for e in by_layer.values()], markersize=3.5, label=name, **look)
        middle = median(by_layer.values())
        results.metric(f"pruning.layer_error.{name}", middle, "share", n=len(by_layer))
        print(f"{name:10} the middle layer loses {middle:.1%} of its output's energy, the worst {_worst(by_layer)}")
    ax.set(title="What half the weights take from each layer's output", xlabel="linear layer (count, from the first)")
    ax.set(ylabel="changed (% of the output's energy)", yscale="log")
    ax.legend()
    if {"magnitude", "wanda"} <= errors.keys():
        better = [name for name, error in errors["wanda"].items() if error < errors["magnitude"][name]]
        n = len(errors["wanda"])
        print(f"Wanda's error is the smaller one in {len(better)} of {n} layers. That is what its score is made for;")
        print("what it does to answers is another question, and is measured below.")


def _worst(by_layer: Mapping[str, float]) -> str:
    name = max(by_layer, key=by_layer.get)
    return f"{by_layer[name]:.1%} ({_short(name)})"


def _short(name: str) -> str:
    """ "model.layers.3.mlp.down_proj" as "down_proj of layer 4"."""
    number = next((int(part) + 1 for part in name.split(".") if part.isdigit()), None)
    last = name.split(".")[-1]
    return last if number is None else f"{last} of layer {number}"


def toy() -> tuple[Tensor, Tensor]:
    """A weight (3, 4), and the norms of its four inputs: small whole numbers, to be checked by hand."""
    weight = torch.tensor([[4.0, 0.0, 1.0, -1.0], [3.0, -2.0, -1.0, -3.0], [-3.0, 1.0, 0.0, 2.0]])
    return weight, torch.tensor([1.0, 2.0, 8.0, 3.0])


def show_toy_errors(weight: Tensor, norms: Tensor, masks: Mapping[str, Tensor]) -> None:
    """For each mask what goes, (weight x norm) squared and summed: the squared error of the outputs, where inputs are
    independent of each other."""
    for name, mask in masks.items():
        lost = ((weight * norms)[~mask] ** 2).sum().item()
        print(f"{name:10} keeps {int(mask.sum())} of {mask.numel()}; squared error of the outputs: {lost:.0f}")
