"""The step of a model with quantized weights, which are multiplied as they are stored (notebook 02).

Codes are a half or a quarter of bfloat16's bytes, and a step of few tokens takes the time in which its weights come
from memory. The C++ (native/products.h) turns codes into numbers in registers: eight bits and four, evenly spaced or
NF4. PyTorch's own packed kernels do the same for evenly spaced ones (packed_step.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from helpers.errors import CourseError
from helpers.kernels.fused_llama import Beside, FusedLlama
from helpers.kernels.native.native_llama import NativeLlama
from helpers.weights.quantization.integer import Group
from helpers.weights.quantization.linear import Stored
from helpers.weights.quantization.llm_int8 import Int8Linear
from helpers.weights.quantization.nf4_codes import Nf4Linear
from helpers.weights.quantization.packed import rounded_for_kernels

GROUP: dict[int, Group] = {8: "channel", 4: 64}  # what kernels take, and what divides the course's model
JOINED = ("qkv", "out", "gate_up", "down")  # a fused layer's linear layers
Make = Callable[[nn.Linear], Stored]


def rounding(bits: int, group: Group | None = None, symmetric: bool = True) -> Make:
    """Rounding to nearest in `bits` and `group`, by default those that the kernels take."""
    return partial(rounded_for_kernels, bits=bits, group=group or GROUP.get(bits, "channel"), symmetric=symmetric)


@torch.inference_mode()
def quantized_fused(model: nn.Module, make: Make, make_head: Make | None = None) -> FusedLlama:
    """The fused step of a model with its linear layers quantized by `make`; those that are quantized already keep their
    codes. The output layer is quantized by `make_head`, or stays. The model stays as it is.

    Raises:
        CourseError: a kind of model that the fused step isn't written for, or layers of another library.
    """
    step = FusedLlama(model)
    for layer in step.layers:
        for name in JOINED:
            setattr(layer, name, _quantized(getattr(layer, name), make))
    if make_head:
        step.lm_head = _quantized(step.lm_head, make_head)
    return step


def _quantized(linear: nn.Module, make: Make) -> nn.Module:
    if isinstance(linear, Beside):
        return Beside(tuple(_quantized(each, make) for each in linear.linears))
    if isinstance(linear, Stored):
        return linear
    if type(linear) is not nn.Linear:
        raise CourseError(f"A {type(linear).__name__} can't be packed: give the model as it was loaded, or quantized.")
    return make(linear)


def native_step(
    model: nn.Module, bits: int = 8, group: Group | None = None, *, head_bits: int | None = 8
) -> NativeLlama:
    """The step in C++ of a bfloat16 model with integer weights: rounded to nearest in `bits` and `group`, where they
    aren't quantized already (by GPTQ, say). The output layer gets `head_bits`; with None it stays in bfloat16.

    Raises:
        CourseError: the model isn't in bfloat16, is of another kind, or this machine has no compiler.
    """
    return _native(model, rounding(bits, group), head_bits)


def native_nf4(model: nn.Module, block: int = 64, *, head_bits: int | None = 8) -> NativeLlama:
    """The same with NF4's levels, in bfloat16, and scales of blocks, in float32."""
    return _native(model, partial(Nf4Linear, block=block), head_bits)


def native_w8a8(model: nn.Module, *, head_bits: int | None = 8) -> NativeLlama:
    """The same with weights and the inputs of all layers but the output's in eight bits; smoothed before, say
    (smoothquant.smooth). Sums are of whole numbers, and exact."""
    return _native(model, partial(Int8Linear, threshold=None), head_bits)


def _native(model: nn.Module, make: Make, head_bits: int | None) -> NativeLlama:
    if model.dtype != torch.bfloat16:
        raise CourseError(f'Codes become bfloat16 numbers, and this model is in {model.dtype}: load it in "bfloat16".')
    return NativeLlama(quantized_fused(model, make, rounding(head_bits) if head_bits else None))
