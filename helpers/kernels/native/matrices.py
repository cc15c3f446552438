"""What a linear layer multiplies by, as the C++ reads it: numbers, or a quantized layer's codes and scales."""

from __future__ import annotations

import torch
from torch import nn

from helpers.errors import CourseError
from helpers.kernels.fused_llama import Beside
from helpers.kernels.native.tiles import Codes
from helpers.weights.quantization.integer import IntegerLinear
from helpers.weights.quantization.llm_int8 import Int8Linear
from helpers.weights.quantization.nf4_codes import LEVELS, Nf4Linear

EVEN_LEVELS = torch.arange(-8, 8).bfloat16()  # of four-bit codes plus eight
NF4_LEVELS = LEVELS.bfloat16()


def matrix(layer: nn.Module) -> torch.Tensor | Codes:
    """The weight (out, in) of a dense or quantized layer, or of several with the same input.

    Raises:
        CourseError: a kind of layer that the C++ doesn't read, or layers joined that are unlike.
    """
    if isinstance(layer, Beside):
        parts = [matrix(each) for each in layer.linears]
        if all(isinstance(part, Codes) for part in parts):
            return Codes.beside(parts)
        if not any(isinstance(part, Codes) for part in parts):
            return torch.cat(parts)
        raise CourseError("Layers that read the same input are joined: quantize all of them, or none.")
    if isinstance(layer, IntegerLinear):
        return _of_integers(layer)
    if isinstance(layer, Nf4Linear):
        return _of_nf4(layer)
    if isinstance(layer, Int8Linear) and not layer.threshold:
        return Codes(layer.codes, layer.scales, for_bytes=True)
    if type(layer) is not nn.Linear:
        raise CourseError(f"The step in C++ can't be had: it does not read a {type(layer).__name__}.")
    return layer.weight.detach()


def bias(layer: nn.Module) -> torch.Tensor | None:
    """The layer's bias (out,), if it has one; CourseError where some of those joined have one and others none."""
    if not isinstance(layer, Beside):
        return layer.bias
    biases = [each.bias for each in layer.linears]
    if any(each is None for each in biases):
        if any(each is not None for each in biases):
            raise CourseError(
                "The step in C++ can't be had: its queries, keys and values all have a bias, or none has."
            )
        return None
    return torch.cat([each.detach() for each in biases])


def _of_integers(layer: IntegerLinear) -> Codes:
    codes = layer.integer_codes()
    if not layer.symmetric or 4 < layer.bits < 8:
        raise CourseError("The step in C++ reads symmetric integers of 8 bits, or of up to 4: quantize with those.")
    if layer.bits == 8:
        return Codes(codes, layer.scales)
    return Codes((codes + 8).to(torch.uint8), layer.scales, EVEN_LEVELS)


def _of_nf4(layer: Nf4Linear) -> Codes:
    if layer.in_features % layer.block:
        raise CourseError(f"The step in C++ reads blocks within a row, and {layer.block} don't divide this one's.")
    return Codes(layer.codes, layer.absmax().view(layer.out_features, -1), NF4_LEVELS)
