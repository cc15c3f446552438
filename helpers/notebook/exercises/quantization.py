"""The exercises of notebook 02."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def matrices_and_bits() -> list[tuple]:
    """Weights (out, in), bits of a code."""
    import torch

    weight = torch.tensor([[0.5, -2.0, 0.9], [0.01, 0.02, -0.03]])
    return [
        (weight, 8),
        (torch.tensor([[0.0, 0.0], [1.0, -0.4]]), 8),
        (weight, 4),
        (torch.tensor([[1.2734375, -0.90625, 0.30078125]]).bfloat16(), 8),
    ]


def blocks() -> list[tuple]:
    """Numbers, and how many of them share a scale."""
    import torch

    draw = torch.Generator().manual_seed(2)
    return [
        (torch.tensor([0.3, -0.1, 0.02, 0.9, -3.0, 0.4, 1.0, 0.0]), 4),
        (torch.randn(3, 8, generator=draw), 4),
        (torch.tensor([[0.0, 0.0, 0.5, -0.25]]), 2),
        (torch.randn(2, 64, generator=draw).bfloat16(), 64),
    ]


def layers_to_scale() -> list[tuple]:
    """weight (out, in), mean |x| (in,), the sum of x x^T (in, in), bits, group, symmetric, steps."""
    import torch

    draw = torch.Generator().manual_seed(7)

    def layer(out_features: int, in_features: int, outlier: int) -> tuple:
        x = torch.randn(200, in_features, generator=draw)
        x[:, outlier] *= 30
        return torch.randn(out_features, in_features, generator=draw), x.abs().mean(0), x.T @ x

    return [
        (*layer(6, 16, 3), 3, "channel"),
        (*layer(16, 16, 5), 4, 8),
        (*layer(6, 16, 0), 3, "channel", False, 8),
    ]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "02.1",
        "helpers.weights.quantization.integer:absmax_codes",
        matrices_and_bits,
        (
            "The largest weight of a row, whatever its sign, gets the largest code, 2 ** (bits - 1) - 1. By what is "
            "every weight of that row multiplied, then?",
            "absmax = weight.float().abs().amax(dim=-1, keepdim=True). The codes are weight * (levels / absmax), "
            "rounded by torch.round and then cast; the scales are absmax / levels.",
            "A row of zeros: absmax = torch.where(absmax > 0, absmax, levels) makes its scale 1.",
        ),
        case_names=("8 bits", "a row of zeros", "4 bits", "weights in bfloat16"),
    ),
    Exercise(
        "02.2",
        "helpers.weights.quantization.nf4_codes:nf4_codes",
        blocks,
        (
            "Cut x into blocks (x.reshape(-1, block)), divide each by its largest magnitude, and look for the nearest "
            "of the 16 LEVELS. Each number's distance to all of them is one subtraction with a further dimension.",
            "(shares[..., None] - LEVELS).abs().argmin(-1) are the codes of shares from -1 to 1. Or: the code is how "
            "many midpoints between neighbouring levels lie below, torch.bucketize(shares, midpoints).",
            "absmax.clamp(min=1e-38) keeps a block of zeros from a division by 0. Codes are .to(torch.uint8) in x's "
            "shape; absmax is float32, (blocks,).",
        ),
        case_names=("two blocks", "several rows", "a block of zeros", "weights in bfloat16"),
    ),
    Exercise(
        "02.3",
        "helpers.weights.quantization.awq:search_scale",
        layers_to_scale,
        (
            "For one alpha: s = awq_scale(mean_abs, alpha) belongs to the inputs, so it multiplies the columns of the "
            "weight. What does a layer have in effect when its inputs were divided by s?",
            "rounded = round_to_nearest(weight * s, bits, group, symmetric) / s. With E = rounded - weight the "
            "output's squared error is ((E @ hessian) * E).sum().item().",
            "Fill errors[step / steps] for step in range(steps + 1); the best is min(errors, key=errors.get).",
        ),
        tolerance=1e-3,
        case_names=("3 bits, a channel", "4 bits, groups of 8", "a zero point, 8 steps"),
    ),
)
