"""Grids of notebook 02, looked at: where weights land, what a scale for each group brings, the base's own grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from helpers.errors import CourseError
from helpers.kernels.fastest_step import fastest_step
from helpers.measuring.quality import logits_of, perplexity
from helpers.notebook.diagrams.nf4_levels import draw_nf4_levels
from helpers.notebook.diagrams.quantization_grid import draw_grid
from helpers.notebook.quantization_models import Pair, copy_of
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.weights.quantization.calibration import observed_linears
from helpers.weights.quantization.integer import IntegerLinear, round_to_nearest
from helpers.weights.quantization.nf4_codes import LEVELS, Nf4Linear
from helpers.weights.quantization.q4_1 import through_q4_1

Rounding = Callable[[torch.Tensor], torch.Tensor]


def relative_error(rounded: torch.Tensor, exact: torch.Tensor) -> float:
    """The size of the error over that of the weight, both as the root of the sum of squares."""
    return ((rounded.float() - exact.float()).norm() / exact.float().norm()).item()


def draw_rows(weight: torch.Tensor, count: int = 12) -> None:
    """A few weights of a row on a grid of three bits, and the same with one that is three times the largest."""
    row = weight[0, :count].tolist()
    draw_grid({f"{count} weights of a row": row, "with one large weight": [*row[:-1], 3 * max(map(abs, row))]})


def show_groups(linear: nn.Linear, groups: Sequence[str | int] = ("tensor", "channel", 64, 32)) -> None:
    """For 8, 4 and 3 bits: bits of a weight with its scales, and the error, by who shares a scale; symmetric and with a
    zero point."""
    weight = linear.weight.detach()
    print(f"{'':24}{'symmetric':>22}{'with a zero point':>24}")
    print(
        f"{'bits, a scale for each':24}" + f"{'bits a weight':>14}{'error':>8}" + f"{'bits a weight':>16}{'error':>8}"
    )
    for bits in (8, 4, 3):
        for group in groups:
            try:
                both = [IntegerLinear.of(linear, bits, group, symmetric) for symmetric in (True, False)]
            except CourseError as reason:
                print(f"{bits}, {group}: left out. {reason}")
                continue
            name = f"group of {group}" if isinstance(group, int) else group
            print(f"{f'{bits}, {name}':24}", end="")
            for layer, wide in zip(both, (14, 16)):
                stored = layer.stored_bits if group != "tensor" else bits * weight.numel() + 32  # one scale for all
                print(f"{stored / weight.numel():{wide}.2f}", end="")
                print(f"{relative_error(layer.dequantized(), weight):8.2%}", end="")
            print()


def shifted_q4_1(weight: torch.Tensor) -> torch.Tensor:
    """As `through_q4_1`, but the blocks begin half a block later: as many bits, and another grid."""
    return through_q4_1(weight.roll(16, -1)).roll(-16, -1)


GRIDS: dict[str, tuple[str, Rounding]] = {
    "own_grid": ("Q4_1, as the base was stored", through_q4_1),
    "shifted_grid": ("Q4_1, blocks shifted by 16", shifted_q4_1),
    "even_grid": ("absmax, 4 bits, groups of 32", lambda weight: round_to_nearest(weight, 4, 32)),
}


def rounded_copy(model: nn.Module, rounding: Rounding) -> tuple[nn.Module, float]:
    """A copy whose linear weights have been rounded, and the error of all of them together."""
    rounded = copy_of(model)
    wrong = whole = 0.0
    for linear in observed_linears(rounded).values():
        exact = linear.weight.detach()
        linear.weight = nn.Parameter(rounding(exact), requires_grad=False)
        wrong += (linear.weight - exact).square().sum().item()
        whole += exact.square().sum().item()
    return rounded, (wrong / whole) ** 0.5


def show_own_grid(results: Results, by_name: Mapping[str, nn.Module], pairs: Sequence[Pair]) -> None:
    """Base and fine-tuned weights rounded to the base's own grid and to others: error, and perplexity of the reference
    answers before and after; writes both."""
    print(f"{'':44}{'error of the weights':>22}{'perplexity':>13}")
    errors: dict[tuple[str, str], float] = {}
    for name, model in by_name.items():
        before = _perplexity(model, pairs)
        print(f"{name + ', as it is':44}{0:22.2%}{before:13.4f}")
        for key, (words, rounding) in GRIDS.items():
            try:
                rounded, errors[name, key] = rounded_copy(model, rounding)
            except CourseError as reason:
                print(f"{words}: left out. {reason}")
                continue
            after = _perplexity(rounded, pairs)
            print(f"{f'{name}: {words}':44}{errors[name, key]:22.2%}{after:13.4f}", flush=True)
            ending = f"{key}.{name.replace('-', '_')}"
            results.metric(f"quantization.rounding_error.{ending}", errors[name, key], "share")
            results.metric(f"quantization.perplexity_rounded.{ending}", after, "tokens", n=len(pairs))
    _read_own_grid(errors)


def _perplexity(model: nn.Module, pairs: Sequence[Pair]) -> float:
    return perplexity(logits_of(fastest_step(model, turns=0)), pairs)


def _read_own_grid(errors: Mapping[tuple[str, str], float]) -> None:
    both = [errors.get(("base", key)) for key in ("own_grid", "shifted_grid")]
    if None in both:
        return
    own, shifted = both
    if own < shifted / 5:
        sentences = [
            f"The base lies on its own grid already: rounding to it once more moves the weights by {own:.2%}, the same "
            f"kind of grid shifted by half a block by {shifted:.2%}."
        ]
    else:
        sentences = ["This model doesn't lie on Q4_1's grid: no rounding is free."]
    tuned = errors.get(("fine-tuned", "own_grid"))
    if tuned is not None:
        left = "have left it" if tuned > 5 * own else "have hardly left it"
        sentences.append(
            f"The fine-tuned weights {left}: {tuned:.2%}. On the base a method that happens to use the grid of the "
            "file would look perfect, so methods are compared on the fine-tuned weights."
        )
    say(*sentences)


def draw_block(weight: torch.Tensor, block: int = 64) -> None:
    """NF4's levels over the normal density, with the first block of the weight."""
    draw_nf4_levels(LEVELS.tolist(), weight.detach().float().flatten()[:block].tolist())


def show_four_bits(linears: Mapping[str, nn.Linear]) -> None:
    """The error of all these weights together in four bits, by kind of grid, a scale for 64 or 32 weights."""
    kinds: dict[str, Callable[[nn.Linear], nn.Module]] = {
        "even grid, groups of 64": lambda linear: IntegerLinear.of(linear, 4, 64),
        "even grid, groups of 32": lambda linear: IntegerLinear.of(linear, 4, 32),
        "zero point, groups of 64": lambda linear: IntegerLinear.of(linear, 4, 64, symmetric=False),
        "NF4, blocks of 64": lambda linear: Nf4Linear(linear, 64),
    }
    errors = {}
    print(f"{'':28}{'bits a weight':>14}{'error':>9}")
    for name, make in kinds.items():
        try:
            layers = {linear: make(linear) for linear in linears.values()}
        except CourseError as reason:
            print(f"{name}: left out. {reason}")
            continue
        weights = [linear.weight.detach().float() for linear in layers]
        off = [layer.dequantized() - weight for layer, weight in zip(layers.values(), weights)]
        errors[name] = (sum(e.square().sum() for e in off) / sum(w.square().sum() for w in weights)).sqrt().item()
        bits = sum(layer.stored_bits for layer in layers.values()) / sum(w.numel() for w in weights)
        print(f"{name:28}{bits:14.3f}{errors[name]:9.2%}")
    even, normal = errors.get("even grid, groups of 64"), errors.get("NF4, blocks of 64")
    if even and normal:
        print(f"With a scale for 64 weights each, NF4's error is {normal / even:.0%} of the even grid's.", end=" ")
    print("Smaller groups buy a smaller error with more bits.")


def show_double_quantization(linear: nn.Linear, block: int = 64) -> None:
    """Bits of an NF4 weight with its scales in float32, and with the scales in eight bits, as one layer has them."""
    layer, numbers = Nf4Linear(linear, block), linear.weight.numel()
    print(f"4 bits and a float32 scale for {block} weights: {4 + 32 / block:.3f} bits a weight")
    print(f"scales in 8 bits, with a float32 for 256 of them: {layer.stored_bits / numbers:.3f} bits a weight", end=" ")
    print(f"({layer.stored_bits / numbers / 16:.3f} of fp16)")
    print(f"error of this matrix: {relative_error(layer.dequantized(), linear.weight.detach()):.2%}")
