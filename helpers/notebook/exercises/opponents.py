"""The exercise of notebook 08b, an extra."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def weights_and_heads() -> list[tuple]:
    """(weight (heads x size, hidden), heads): every row says by its numbers where it came from."""
    import torch

    def rows(heads: int, size: int, hidden: int) -> torch.Tensor:
        return torch.arange(heads * size * hidden, dtype=torch.float64).view(heads * size, hidden)

    return [(rows(1, 6, 1), 1), (rows(2, 6, 1), 2), (rows(3, 8, 5), 3)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "08b.1",
        "helpers.models.to_gguf:neighbours_first",
        weights_and_heads,
        (
            "Give the rows their own dimensions first: which head, which half of it, and where in the half.",
            "The rows as (heads, 2, size / 2). The new order runs through the halves faster than through the places.",
            "weight.unflatten(0, (heads, 2, -1)), swap dimensions 1 and 2, and flatten the first three again.",
        ),
        case_names=("one head of 6 rows", "two heads", "three heads of 8 rows"),
    ),
)
