"""Number formats, drawn and printed, and rounding checked against torch (notebook 01)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch

from helpers.notebook import plots
from helpers.notebook.results import Results
from helpers.weights.precision.formats import FORMATS, Fields, FloatFormat, from_bits, to_bits

Rounding = Callable[[torch.Tensor, FloatFormat], torch.Tensor]


def draw_formats() -> None:
    """How each format shares out its bits, and where its numbers end."""
    _, ax = plt.subplots(figsize=(8, 2.6))
    dark, orange, blue = plots.COLORS[:3]
    looks = {
        "sign": {"color": orange},
        "exponent": {"color": blue, "hatch": "//"},
        "mantissa": {"color": "white", "hatch": ".."},
    }
    for place, fmt in enumerate(FORMATS.values()):
        left = 0
        for part, bits in zip(looks, (1, fmt.exponent_bits, fmt.mantissa_bits)):
            ax.barh(place, bits, left=left, edgecolor=dark, label=None if place else part, **looks[part])
            left += bits
    ax.set(title="How each format shares out its bits", xlim=(0, 36), xlabel="length (bits)", ylabel="format")
    ax.set_yticks(range(len(FORMATS)), list(FORMATS))
    ax.invert_yaxis()
    ax.legend(loc="lower right")
    print(f"{'':15} {'largest':>10} {'smallest normal':>16} {'smallest':>10} {'step at 1':>10}")
    for fmt in FORMATS.values():
        print(f"{fmt.name:15} {fmt.largest:10.5g} {fmt.smallest_normal:16.3g}", end=" ")
        print(f"{fmt.smallest:10.2g} {fmt.step_at_1:10.2g}")


def show_bits(numbers: Sequence[float]) -> None:
    """Each number's sign, exponent and mantissa in each format, and what is kept of it."""
    for number in numbers:
        print(f"{number:g}")
        for fmt in FORMATS.values():
            sign, exponent, mantissa = to_bits(number, fmt)
            bits = f"{sign} {exponent:0{fmt.exponent_bits}b} {mantissa:0{fmt.mantissa_bits}b}"
            kept = from_bits(Fields(sign, exponent, mantissa), fmt)
            print(f"   {fmt.name:15} {bits:34} = {kept:.9g}")
    print("(float8_e4m3fn has no infinity: here, what is too large becomes its largest number.)")


def compare_with_torch(results: Results, rounding: Rounding, seed: int, count: int = 500_000) -> None:
    """Rounding to each format against torch's own, on random patterns of 32 bits, and on numbers halfway between two
    neighbours; writes the invariant."""
    draw = torch.Generator().manual_seed(seed)
    patterns = torch.randint(-(2**31), 2**31, (count,), generator=draw).to(torch.int32).view(torch.float32)
    agreed = total = 0
    for fmt in list(FORMATS.values())[1:]:
        numbers = torch.cat([patterns, _halfway(rounding(patterns, fmt), fmt)])
        if not fmt.infinity:  # what is too large is each library's own choice there
            numbers = numbers[numbers.abs() <= fmt.largest]
        ours, theirs = rounding(numbers, fmt), numbers.to(fmt.dtype()).float()
        same = (ours == theirs) | (ours.isnan() & theirs.isnan())
        agreed, total = agreed + same.sum().item(), total + len(same)
        print(f"{fmt.name:15} {same.sum().item():9,} of {len(same):9,} as in torch")
    results.invariant("precision.rounding_equals_torch", agreed == total, agreed, total)


def _halfway(grid: torch.Tensor, fmt: FloatFormat) -> torch.Tensor:
    """Numbers in the middle between a number of the format and the next larger one."""
    exponent = (torch.frexp(grid.double())[1] - 1).clamp(min=1 - fmt.bias)
    half_step = torch.ldexp(torch.ones_like(grid).double(), exponent - fmt.mantissa_bits - 1)
    return (grid.double() + torch.copysign(half_step, grid.double())).float()


def draw_scale_errors(errors: Mapping[int, float]) -> None:
    """The relative error of a matrix in eight bits, by the power of two that it is multiplied by before."""
    _, ax = plt.subplots(figsize=(8, 3.4))
    ax.plot(list(errors), list(errors.values()), marker="o")
    ax.axvline(0, color="#555555", linestyle=":", marker="")
    ax.annotate("as it is", (0, max(errors.values())), rotation=90, ha="right", va="top")
    ax.set(title="A float's range is what the scale has to find", yscale="log")
    ax.set(xlabel="weights multiplied by 2 to the (power)", ylabel="relative error (share of the norm)")
