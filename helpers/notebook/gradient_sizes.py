"""How small gradients get, and training in four precisions (notebook 01c)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean

import matplotlib.pyplot as plt
import torch

from helpers.notebook import plots
from helpers.notebook.results import Results
from helpers.training.mixed_precision import LossScaler, TrainStep
from helpers.weights.precision.formats import FORMATS
from helpers.weights.precision.ranges import magnitudes, vanishing

SCALED = "float16, loss scaling (emulated)"
KEYS = {
    "float32": "fp32",
    "bfloat16 (autocast)": "bf16",
    "float16, no scaling (emulated)": "fp16_unscaled",
    SCALED: "fp16_scaled",
}


def draw_gradients(gradients: Sequence[torch.Tensor], pieces: int) -> None:
    """Gradients by size, of one batch and of one of `pieces` pieces of a large one, with float16's end; and what share
    of them each format makes 0."""
    _, ax = plt.subplots(figsize=(8, 3.6))
    scales = {"one batch": 1.0, f"a piece, one of {pieces}": 1 / pieces}
    for (label, scale), marker in zip(scales.items(), plots.MARKERS):
        powers, shares = magnitudes([g * scale for g in gradients], lowest=-48, highest=0)
        ax.plot(powers, [100 * share for share in shares], marker=marker, markevery=3, label=label)
    end = math.log2(FORMATS["float16"].smallest) - 1
    ax.axvspan(-48, end, color="#dddddd", zorder=0, label="0 in float16")
    ax.set(title="Gradients by size, and what float16 makes 0")
    ax.set(xlabel="size (power of two)", ylabel="gradients (%)")
    ax.legend()
    print(f"{'become 0 in':15} {'one batch':>12} {'a piece':>10} {'a piece, loss x 65536':>24}")
    for fmt in list(FORMATS.values())[1:]:
        lost = [vanishing(gradients, fmt, scale) for scale in (1, 1 / pieces, 65536 / pieces)]
        print(f"{fmt.name:15} {lost[0]:12.2%} {lost[1]:10.2%} {lost[2]:24.2%}")


def show_trainings(results: Results, curves: Mapping[str, Sequence[TrainStep]]) -> None:
    """Each precision's loss, the scale's way, how many gradients were 0; writes the losses at the end."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=(3, 2))
    for (name, steps), style in zip(curves.items(), ("-", "--", ":", "-.")):
        left.plot([step.loss for step in steps], label=name, linestyle=style, markevery=max(1, len(steps) // 10))
    left.set(xlabel="training (steps)", ylabel="loss (nats per token)", title="The same training in four precisions")
    left.legend(fontsize=9)
    scaled = curves[SCALED]
    powers = [math.log2(step.scale) for step in scaled]
    skips = [place for place, step in enumerate(scaled) if step.skipped]
    right.plot(powers, marker="", label="scale")
    right.plot(skips, [powers[place] for place in skips], "v", label="overflow, skipped")
    right.set(xlabel="training (steps)", ylabel="loss scale (power of two)", title="The scale looks for its place")
    right.legend()
    for name, steps in curves.items():
        last = [step.loss for step in steps[-max(1, len(steps) // 6) :]]
        zeros, skipped = mean(step.zeros for step in steps), sum(step.skipped for step in steps)
        kind = "simulated" if "emulated" in name else "measured"
        results.metric(f"precision.training_loss.{KEYS[name]}", mean(last), "nats", kind=kind, n=len(last))
        print(f"{name:33} loss at the end {mean(last):.3f}; {zeros:6.1%} of the gradients were 0;", end=" ")
        print(f"{skipped} steps skipped")
    unscaled = mean(step.zeros for step in curves["float16, no scaling (emulated)"])
    print(f"Without scaling {unscaled:.0%} of float16's gradients were 0: what becomes 0 teaches nothing.")


def compare_scalers(results: Results, device: str, fates: Sequence[bool]) -> None:
    """torch's GradScaler and the course's see the same overflows, and have to come to the same scales; writes the
    invariant."""
    theirs = torch.amp.GradScaler(device, init_scale=2.0**16, growth_interval=3)
    ours, equal = LossScaler(2.0**16, patience=3), 0
    number = torch.nn.Parameter(torch.ones(1, device=device))
    optimizer = torch.optim.SGD([number], lr=0.1)
    for finite in fates:
        theirs.scale(number.sum())
        number.grad = torch.full_like(number, 1.0 if finite else math.inf)
        theirs.step(optimizer)
        theirs.update()
        ours.update(bool(finite))
        equal += theirs.get_scale() == ours.scale
    results.invariant("precision.loss_scaler_equals_torch", equal == len(fates), equal, len(fates))
    print(f"The same scale after {equal} of {len(fates)} steps.")
