"""The exercises of notebook 01c."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def gradients_and_largest_numbers() -> list[tuple]:
    """The largest gradient, the format's largest number."""
    return [(1.0, 65504.0), (3e-5, 65504.0), (2.0**-20, 57344.0), (500.0, 448.0), (7.0, 448.0)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "01c.1",
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
)
