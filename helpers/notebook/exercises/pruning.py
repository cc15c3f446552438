"""The exercises of notebook 04."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def weights_and_squares() -> list[tuple]:
    """weight (out, in), the sum of x^2 of each input (in,), the share that goes."""
    import torch

    draw = torch.Generator().manual_seed(4)
    toy = torch.tensor([[4.0, 0.0, 1.0, -1.0], [3.0, -2.0, -1.0, -3.0], [-3.0, 1.0, 0.0, 2.0]])
    norms = torch.tensor([1.0, 2.0, 8.0, 3.0])
    wide = torch.randn(5, 8, generator=draw)
    squares = torch.tensor([0.01, 400.0, 1.0, 9.0, 0.25, 2.0, 0.5, 30.0])
    return [
        (toy, norms**2, 0.5),
        (wide, squares, 0.25),
        (torch.tensor([[0.2, 0.3, 0.5, 0.7, 0.9, 0.4], [9.0, 8.0, 7.0, 6.0, 5.0, 4.0]]), torch.ones(6), 0.6),
        (torch.tensor([[5.0, -0.1, 0.2, 0.3], [7.0, 0.3, -0.2, 0.1]]), torch.tensor([0.0, 1.0, 1.0, 1.0]), 0.25),
        (wide[:2].bfloat16(), squares, 0.5),
        (toy, norms**2, 0.0),
    ]


def scores_in_rows() -> list[tuple]:
    """Scores (out, in), all at least 0."""
    import torch

    draw = torch.Generator().manual_seed(5)
    return [
        (torch.tensor([[0.5, 3.0, 1.0, 2.0]]),),
        (torch.tensor([[9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 4.0, 3.0]]),),
        (torch.tensor([[5.0, 6.0, 1.0, 2.0], [1.0, 9.0, 8.0, 2.0], [7.0, 8.0, 9.0, 6.0], [2.0, 1.0, 3.0, 4.0]]),),
        (torch.rand(3, 16, generator=draw),),
    ]


def attention_weights() -> list[tuple]:
    """(q, k, v, o), the loss's gradients by them, numbers in a head."""
    import torch

    draw = torch.Generator().manual_seed(6)

    def four(heads: int, kv_heads: int, head_dim: int, hidden: int, dtype=torch.float32) -> list[torch.Tensor]:
        shapes = [(heads * head_dim, hidden), *[(kv_heads * head_dim, hidden)] * 2, (hidden, heads * head_dim)]
        return [torch.randn(shape, generator=draw).to(dtype) for shape in shapes]

    sizes = [(2, 2, 3, 5), (6, 3, 2, 7), (4, 2, 2, 8), (3, 1, 2, 4)]
    cases = [(four(*size), four(*size), size[2]) for size in sizes]
    half = [four(4, 2, 2, 6, torch.bfloat16) for _ in range(2)]
    return [*cases, (*half, 2)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "04.1",
        "helpers.weights.pruning.wanda:wanda_mask",
        weights_and_squares,
        (
            "A weight adds w x to its output. Over all tokens x is as large as its norm: which number of `squares` "
            "belongs to which column, and what makes a norm of it?",
            "The scores are |W| times the norms, (out, in): a vector (in,) multiplies each column. Then rank in rows.",
            "keep_best(weight.float().abs() * squares.sqrt(), sparsity)",
        ),
        tolerance=0,
        case_names=(
            "the table above",
            "inputs of very different norms",
            "a share that is no whole number of weights",
            "an input that is always 0",
            "weights in bfloat16",
            "nothing goes",
        ),
    ),
    Exercise(
        "04.2",
        "helpers.weights.pruning.sparsity:keep_two_of_four",
        scores_in_rows,
        (
            "If each four neighbours were a row of their own, keep_best would do it. How do you fold the rows, and how "
            "do you unfold the mask?",
            "scores.unflatten(-1, (-1, 4)) is (out, in / 4, 4), and .flatten(-2) undoes it.",
            "keep_best(scores.unflatten(-1, (-1, 4)), 0.5).flatten(-2)",
        ),
        tolerance=0,
        case_names=(
            "one four",
            "all the best stand in one four",
            "as many rows as columns",
            "three rows of four fours",
        ),
    ),
    Exercise(
        "04.3",
        "helpers.weights.pruning.structured:kv_head_importance",
        attention_weights,
        (
            "First one number for each weight: |weight × gradient|, in float32. Then one for each row of q, k and v. "
            "Which numbers of o belong to the same head?",
            "o reads the heads, so a head's part of it are columns: sum over its rows, .sum(0). A KV head has head_dim "
            "rows of k and v, and as many times that of q (and columns of o) as heads share it.",
            "With kv_heads = len(k) // head_dim, part.view(kv_heads, -1).sum(1) is right for all four, since heads "
            "that share a KV head are neighbours.",
        ),
        tolerance=1e-5,
        case_names=(
            "each head has its own KV head",
            "two heads share a KV head",
            "o is square",
            "all heads share one KV head",
            "weights in bfloat16",
        ),
    ),
)
