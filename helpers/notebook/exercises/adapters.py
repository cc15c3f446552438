"""The exercises of notebook 03b."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def queries_and_prompts() -> list[tuple]:
    """q (batch, heads, tokens, head_dim), k and v (batch, kv_heads, prompts, head_dim), gates (heads,)."""
    import torch

    draw = torch.Generator().manual_seed(5)

    def case(heads: int, kv_heads: int, gates: list[float]) -> tuple:
        q = torch.randn(2, heads, 3, 4, generator=draw)
        k, v = (torch.randn(2, kv_heads, 5, 4, generator=draw) for _ in range(2))
        return q, k, v, torch.tensor(gates)

    return [
        case(2, 2, [1.0, 1.0]),
        case(2, 2, [0.5, -0.25]),
        case(6, 3, [1.0] * 6),
        case(6, 2, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
    ]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "03b.1",
        "helpers.weights.adapters.llama_adapter:prompt_attention",
        queries_and_prompts,
        (
            "It is attention without a mask: compare, divide by the root of head_dim, softmax, mix. Where do the "
            "prompts stand in the shape of the scores, and over which dimension does softmax go?",
            "k.repeat_interleave(heads // kv_heads, 1) gives each head its keys: neighbours share.",
            "softmax(q @ k.transpose(-1, -2) / sqrt(head_dim), -1) @ v, times gates[:, None, None].",
        ),
        tolerance=1e-5,
        case_names=(
            "each head has keys of its own, the gates open",
            "gates half open",
            "two neighbouring heads share keys",
            "three neighbouring heads share keys, the gates differ",
        ),
    ),
)
