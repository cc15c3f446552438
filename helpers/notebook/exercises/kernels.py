"""The exercise of notebook 00c, an extra."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def inputs_and_weights() -> list[tuple]:
    """x (n, in), weights (out, in): as many outputs each, fewer keys and values than queries, one weight alone."""
    import torch

    draw = torch.Generator().manual_seed(3)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    return [
        (some(1, 4), [some(3, 4), some(3, 4)]),
        (some(2, 6), [some(6, 6), some(2, 6), some(2, 6)]),
        (some(5, 4), [some(4, 4)]),
    ]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "00c.1",
        "helpers.kernels.one_product:one_product",
        inputs_and_weights,
        (
            "Each row of a weight makes one output. What happens when the rows of all weights stand below each other?",
            "torch.cat(weights) is (all outs, in), and x @ its transpose gives all outputs side by side.",
            "Cut them apart with .split([len(weight) for weight in weights], dim=-1), and return a list.",
        ),
        case_names=("two weights alike", "more queries than keys and values", "one weight"),
    ),
)
