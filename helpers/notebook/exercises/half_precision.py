"""The exercises of notebook 01."""

from __future__ import annotations

import math

from helpers.notebook.exercises.exercise import Exercise


def fields() -> list[tuple]:
    """sign, exponent, mantissa, exponent_bits, mantissa_bits."""
    return [
        (0, 15, 512, 5, 10),
        (1, 130, 64, 8, 7),
        (0, 1, 0, 5, 10),
        (0, 0, 1, 5, 10),
        (1, 0, 5, 4, 3),
        (0, 0, 0, 8, 23),
        (0, 14, 7, 4, 3),
        (0, 15, 6, 4, 3),
    ]


def tensors_and_formats() -> list[tuple]:
    """Numbers, a FloatFormat."""
    import torch

    from helpers.weights.precision.formats import FORMATS

    half, brain, eight = FORMATS["float16"], FORMATS["bfloat16"], FORMATS["float8_e4m3fn"]
    return [
        (torch.tensor([1.0005, -3.14159, 1000.3, 0.0]), half),
        (torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -(2 + 2**-7)]), brain),
        (torch.tensor([1e-7, 2e-8, -8.9e-8, 3e-5]), half),
        (torch.tensor([65519.0, 65520.0, -1e6]), half),
        (torch.tensor([447.0, 449.0, -1e9]), eight),
        (torch.tensor([[math.inf, -math.inf], [1e39, 0.3]], dtype=torch.float64), brain),
    ]


def shares_and_factors() -> list[tuple]:
    """The part's share of the time, how many times as fast it gets."""
    return [(0.6, 2.0), (1.0, 4.0), (0.0, 10.0), (0.9, 1e9), (0.5, 0.5)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "01.1",
        "helpers.weights.precision.formats:value_of",
        fields,
        (
            "The mantissa counts steps: divided by 2 ** mantissa_bits it is the part after the point of 1.mantissa.",
            "Usually (1 + mantissa / 2 ** mantissa_bits) * 2.0 ** (exponent - bias), with a minus for the sign 1.",
            "With the exponent field 0: mantissa / 2 ** mantissa_bits * 2.0 ** (1 - bias).",
        ),
        tolerance=0,
        case_names=(
            "1.5 in float16",
            "negative, in bfloat16",
            "the smallest normal number of float16",
            "the smallest number of float16",
            "subnormal and negative, in 8 bits",
            "zero",
            "240 in 8 bits",
            "448 in 8 bits, which have no infinity",
        ),
    ),
    Exercise(
        "01.2",
        "helpers.weights.precision.formats:rounded",
        tensors_and_formats,
        (
            "Between 2^e and 2^(e+1) neighbours are 2^(e - mantissa_bits) apart. Which e does each number have, and "
            "how do you round to a multiple of a step?",
            "torch.frexp(x.double())[1] - 1 is e. Below the normal numbers the steps stay as they are at "
            "1 - fmt.bias: clamp e there. torch.round takes ties to the even multiple, as it should.",
            "near = torch.round(x / step) * step. Where near.abs() > fmt.largest: infinity, or fmt.largest where "
            "fmt.infinity is False, with the sign of x (torch.copysign). Then .to(x.dtype).",
        ),
        tolerance=0,
        case_names=(
            "normal numbers and 0, to float16",
            "halfway between two numbers, to bfloat16",
            "below the normal numbers, to float16",
            "at the end of float16",
            "beyond the end of 8 bits, which have no infinity",
            "infinity, and float64, to bfloat16",
        ),
    ),
    Exercise(
        "01.3",
        "helpers.measuring.cost_model:speedup_of_part",
        shares_and_factors,
        (
            "Take the old time as 1. How long does the part take now, and how long the rest?",
            "The part takes share / factor, the rest 1 - share. The old time was 1.",
        ),
    ),
)
