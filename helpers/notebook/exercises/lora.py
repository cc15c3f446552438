"""The exercises of notebook 03."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def shapes_and_ranks() -> list[tuple]:
    """The shapes (out, in) of linear layers, the rank."""
    return [
        ([(512, 512)], 2),
        ([(512, 512), (256, 512)], 8),
        ([(1024, 512), (512, 1024)], 16),
        ([(512, 512), (512, 512), (256, 512)], 2),
        ([], 4),
    ]


def weights_and_adapters() -> list[tuple]:
    """weight (out, in), a (rank, in), b (out, rank), scaling."""
    import torch

    draw = torch.Generator().manual_seed(3)
    weight, a, b = (torch.randn(shape, generator=draw) for shape in ((3, 5), (2, 5), (3, 2)))
    square = [torch.randn(4, 4, generator=draw) for _ in range(3)]
    return [
        (weight, a, b, 2.0),
        (*square, 0.5),
        (torch.full((2, 2), 256.0).bfloat16(), torch.ones(1, 2), torch.full((2, 1), 0.25), 6.0),
        (torch.ones(2, 2).bfloat16(), torch.ones(1, 2), torch.full((2, 1), 2**-9 + 2**-21), 2.0),
    ]


def prompts_and_completions() -> list[tuple]:
    """Token ids of the prompt, of the completion, and the end-of-sequence token."""
    return [([7, 8, 9], [20, 21], 2), ([5], [30], 0), ([2, 6], [2, 40], 2), ([7, 8], [], 1)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "03.1",
        "helpers.weights.adapters.lora:lora_parameters",
        shapes_and_ranks,
        (
            "A is (rank, in), and B is (out, rank). How many numbers is that for one layer?",
            "rank * in + out * rank for each layer; add them up.",
        ),
        case_names=("one square layer", "two layers", "wide and tall", "layers of the same shape", "no layers"),
    ),
    Exercise(
        "03.2",
        "helpers.weights.adapters.lora:merged_weight",
        weights_and_adapters,
        (
            "B A is b @ a: (out, rank) times (rank, in) is (out, in), as the weight is.",
            "Convert with .float() before you add, and with .to(weight.dtype) after it.",
        ),
        case_names=(
            "3 by 5",
            "square, where a @ b would fit, too",
            "bfloat16, and a change that it would round away",
            "bfloat16, and a change that must not be rounded before it is added",
        ),
    ),
    Exercise(
        "03.3",
        "helpers.training.completions:with_labels",
        prompts_and_completions,
        (
            "The ids are prompt + completion + [eos]. The labels are as long.",
            "[-100] * len(prompt), and then what is learned: the completion and eos.",
        ),
        case_names=("a short example", "the end token is 0", "the end token also stands inside", "nothing to say"),
    ),
)
