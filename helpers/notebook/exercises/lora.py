"""The exercises of notebook 03."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def layers_and_inputs() -> list[tuple]:
    """A layer with adapters, its input (sequences, tokens, in)."""
    import torch

    from helpers.notebook.exercises.adapted_layer import AdaptedLayer

    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(3))
    half = torch.bfloat16
    return [
        (AdaptedLayer("sql"), x),
        (AdaptedLayer("prose"), x),
        (AdaptedLayer(None), x),
        (AdaptedLayer("chat"), x),
        (AdaptedLayer("sql", half), x.to(half)),
        (AdaptedLayer(["sql", None, "prose"]), x),
        (AdaptedLayer(["prose", "chat", "prose"], half), x.to(half)),
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
        "helpers.weights.adapters.lora:LoraLinear.forward",
        layers_and_inputs,
        (
            "Begin with y = layer.linear(x), and return it where no adapter is wanted. What is added to it for one "
            "adapter, with x of shape (..., in), A (rank, in) and B (out, rank)?",
            "x @ A.T is (..., rank), and that @ B.T is (..., out). A and B are in float32: x.to(A.dtype) first, and "
            "the change .to(y.dtype) last. Then do the same with x[i] for each sequence i of a list.",
            "scaling * (x.to(a.dtype) @ a.T) @ b.T is the change; for a list, torch.stack of one result for each "
            "sequence, with a change of zeros where there is no adapter.",
        ),
        tolerance=1e-2,  # sums in bfloat16 may be rounded once more or less
        case_names=(
            "one adapter for the whole batch",
            "another adapter, with another scaling",
            "no adapter",
            "an adapter that this layer does not have",
            "W in bfloat16",
            "an adapter for each sequence, the second without one",
            "an adapter for each sequence, the second's unknown here, W in bfloat16",
        ),
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
