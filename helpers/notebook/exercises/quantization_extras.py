"""The exercises of notebooks 02b, 02c and 02d, extras."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def rows_and_factors() -> list[tuple]:
    """weight (out, n), U (n, n), a grid for each column."""
    import torch

    from helpers.weights.quantization.gptq import inverse_factor
    from helpers.weights.quantization.integer import grid_of

    draw = torch.Generator().manual_seed(4)

    def layer(out_features: int, columns: int, bits: int, symmetric: bool = True) -> tuple:
        x = torch.randn(50, 3, generator=draw) @ torch.randn(3, columns, generator=draw)
        weight = torch.randn(out_features, columns, generator=draw)
        grid = grid_of(weight, bits, symmetric)
        return weight, inverse_factor(x.T @ x, 0.1), [grid] * columns

    narrow, factor, grids = layer(2, 4, 3)
    coarse = grid_of(narrow * 3, 3)
    return [(narrow, factor, grids), layer(5, 8, 4, False), (narrow, factor, [*grids[:2], coarse, coarse])]


def largest_magnitudes() -> list[tuple]:
    """Of each input channel, of each column of the weight, alpha."""
    import torch

    activation, weight = torch.tensor([90.0, 2.0, 0.5]), torch.tensor([0.3, 0.4, 1.5])
    return [
        (activation, weight, 0.5),
        (activation, weight, 0.8),
        (activation, weight, 0.0),
        (torch.tensor([3.0, 0.0]), torch.tensor([0.0, 0.5]), 0.5),
    ]


def layers_that_learn() -> list[tuple]:
    """weight (out, in), x (tokens, in), y (tokens, out), bits, learning rate, group."""
    import torch

    draw = torch.Generator().manual_seed(5)

    def layer(out_features: int, in_features: int, tokens: int) -> tuple:
        weight = torch.randn(out_features, in_features, generator=draw)
        x = torch.randn(tokens, in_features, generator=draw)
        return weight, x, x @ weight.T

    return [(*layer(2, 3, 5), 2, 0.5), (*layer(4, 4, 4), 3, 0.1), (*layer(3, 8, 6), 3, 1.0, 4)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "02b.1",
        "helpers.weights.quantization.gptq:round_columns",
        rows_and_factors,
        (
            "Work on a copy of the weight, column by column: weight[:, j : j + 1] keeps it two-dimensional. What a "
            "later column looks like depends on all errors before it.",
            "error = (column - grid.decode(codes)) / factor[j, j]. From the columns behind j, weight[:, j + 1 :], take "
            "error * factor[j, j + 1 :].",
            "Collect the codes of the columns in a list and join them with torch.cat(codes, dim=1).",
        ),
        tolerance=1e-4,
        case_names=("3 bits", "4 bits with a zero point", "another grid for the last columns"),
    ),
    Exercise(
        "02c.1",
        "helpers.weights.quantization.smoothquant:smooth_scale",
        largest_magnitudes,
        (
            "An input channel is divided by s, so where activations are large s has to be large; where the weights' "
            "column is large, it has to be small.",
            "activation ** alpha / weight ** (1 - alpha), both with .clamp(min=1e-5) before.",
        ),
        case_names=("alpha 0.5", "alpha 0.8", "alpha 0", "a channel and a column of zeros"),
    ),
    Exercise(
        "02d.1",
        "helpers.weights.quantization.qat:straight_through_step",
        layers_that_learn,
        (
            "The forward pass uses the rounded weight, so the error is x @ rounded.T - y. What is the gradient of its "
            "mean square by the rounded weight?",
            "2 * error.T @ x / error.numel() is (out, in). Straight through means: it is taken for the gradient of the "
            "weight behind the rounded one, and that one is what moves.",
        ),
        tolerance=1e-5,
        case_names=("2 bits, a channel", "3 bits, a square weight", "3 bits, groups of 4"),
    ),
)
