"""LLM.int8: bytes times bytes, except for the few inputs that are too large for it (notebook 02).

Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", 2022. Weights have a scale a row
and inputs a scale a token, so that int8 numbers are multiplied and their sums scaled once. One outlier among a token's
inputs would take all codes for itself: columns with an input of at least 6 are kept apart and multiplied in 16 bits.
Without a threshold it is plain W8A8, what SmoothQuant makes possible. Codes are bitsandbytes' to the bit.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from helpers.weights.quantization.integer import absmax_codes, grid_of
from helpers.weights.quantization.linear import Stored, replace_linears

THRESHOLD = 6.0  # the paper's


def outlier_columns(x: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """Which inputs (in,) some token of x (tokens, in) has at `threshold` or above, by size."""
    return (x.abs() >= threshold).any(dim=0)


def integer_product(x_codes: Tensor, weight_codes: Tensor) -> Tensor:
    """int8 (tokens, in) times int8 (out, in) gives (tokens, out), the sums that hardware keeps in 32 bits.

    It is computed in float32 here: exact up to 2^24, and off by a part in 2^24 beyond.
    """
    return x_codes.float() @ weight_codes.float().T


def llm_int8(
    x: Tensor,
    weight_codes: Tensor,
    weight_scales: Tensor,
    threshold: float | None = THRESHOLD,
) -> Tensor:
    """x (tokens, in) times a weight (out, in) of codes int8 and scales (out, 1) gives
    (tokens, out), float32. Without a threshold no column is kept apart."""
    outliers = outlier_columns(x, threshold or math.inf)
    x_codes, x_scales = absmax_codes(x.masked_fill(outliers, 0))  # scales (tokens, 1)
    y = integer_product(x_codes, weight_codes) * x_scales * weight_scales.T
    wide = weight_codes[:, outliers].float() * weight_scales
    return y + x[:, outliers].float() @ wide.T


class Int8Linear(Stored):
    """A linear layer of int8 codes (out, in) and scales (out, 1) whose inputs are quantized as well, a scale a token.

    `threshold` None is plain W8A8. The codes are made of the weight in float16, as bitsandbytes makes them. An
    emulation: a byte for each weight is held, and no time is saved.
    """

    def __init__(self, linear: nn.Linear, threshold: float | None = THRESHOLD):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.threshold, self.bias = threshold, linear.bias
        weight = linear.weight.detach().half()
        grid_of(weight)  # refuses what has no grid: too large for float16, or NaN
        codes, scales = absmax_codes(weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, self.in_features)
        y = llm_int8(tokens, self.codes, self.scales, self.threshold).to(x.dtype)
        y = y.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias


def install(model: nn.Module, threshold: float | None = THRESHOLD) -> nn.Module:
    """Put all linear layers of the model into int8, in place, but the one that makes the logits. Returns the model."""
    replace_linears(model, lambda linear: Int8Linear(linear, threshold), skip=[model.get_output_embeddings()])
    return model


def widen_codes(model: nn.Module) -> nn.Module:
    """Keep the codes as float32 numbers, in place: the same products, without widening them at each call, to judge
    answers fast. Returns the model."""
    for module in model.modules():
        if isinstance(module, Int8Linear):
            module.codes = module.codes.float()
    return model
