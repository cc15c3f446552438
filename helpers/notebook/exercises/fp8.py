"""The exercise of notebook 01b, an extra."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def matrices() -> list[tuple]:
    """Weights (out, in), some of them zeros, and whether each row gets a scale."""
    import torch

    weight = torch.tensor([[0.5, -2.0, 1.0], [0.01, 0.02, 0.03]])
    return [(weight, True), (weight, False), (torch.zeros(1, 2), True), (weight.bfloat16(), True)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "01b.1",
        "helpers.weights.quantization.fp8:scale_of",
        matrices,
        (
            "The largest weight, whatever its sign, has to become 448 when it is divided by the scale.",
            "weight.abs().amax(dim=1, keepdim=True) has the right shape for rows; clamp(min=1e-12) keeps zeros from "
            "trouble; .float() makes it float32.",
        ),
        case_names=("a scale a channel", "one scale", "zeros", "weights in bfloat16"),
    ),
)
