"""The exercises of notebook 01."""

from __future__ import annotations

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


def gradients_and_largest_numbers() -> list[tuple]:
    """The largest gradient, the format's largest number."""
    return [(1.0, 65504.0), (3e-5, 65504.0), (2.0**-20, 57344.0), (500.0, 448.0), (7.0, 448.0)]


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
        "helpers.training.mixed_precision:largest_scale",
        gradients_and_largest_numbers,
        (
            "Largest_gradient times the scale must not be above largest_number. What is the largest factor at all?",
            "Then round it down to a power of two: math.floor of its math.log2 is the exponent.",
        ),
        tolerance=0,
        case_names=(
            "a gradient of 1",
            "a small gradient",
            "a power of two",
            "a gradient that is too large already",
            "exactly the largest number",
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
