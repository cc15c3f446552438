"""The exercises of notebook 00b, an extra."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def cache_shapes() -> list[tuple]:
    """Layers, KV heads, size of a head, bytes of a number: this course's model, and two of 7 and 8 billion weights."""
    return [(30, 3, 64, 4), (32, 32, 128, 2), (32, 8, 128, 2)]


def queries() -> list[tuple]:
    """Queries of which every number is another, with the KV heads: one sequence, several sequences and tokens, a KV
    head each."""
    import torch

    def counted(*shape: int) -> torch.Tensor:
        return torch.arange(float(torch.Size(shape).numel())).view(shape)

    return [(counted(1, 4, 1, 2), 2), (counted(2, 6, 3, 4), 2), (counted(1, 8, 2, 2), 1), (counted(2, 2, 2, 2), 2)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "00b.1",
        "helpers.decoding.kv_cache:bytes_per_token",
        cache_shapes,
        (
            "How many numbers does one token leave in one head of one layer? A key is one vector, and it is not alone.",
            "A key and a value, of head_dim numbers each, for each KV head of each layer; then the bytes of a number.",
        ),
    ),
    Exercise(
        "00b.2",
        "helpers.kernels.grouped_attention:together",
        queries,
        (
            "Neighbouring heads share a KV head, and in memory they lie one after the other. No number has to move.",
            "query.reshape(...) to the shape that was asked for is all. A transpose before it would deal the heads out "
            "in turn.",
        ),
        tolerance=0,
        case_names=(
            "two heads share keys",
            "several sequences and tokens",
            "one KV head for all",
            "a KV head for each head",
        ),
    ),
)
