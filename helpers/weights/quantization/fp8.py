"""Weights in eight-bit floating point, and the scales without which small weights would be lost (notebook 01b).

Micikevicius et al., "FP8 Formats for Deep Learning", 2022. A weight takes one byte; each output channel, or the whole
matrix, shares a float32 scale that moves its largest weight to the format's largest number. GPUs from Ada and Hopper on
multiply the format themselves; elsewhere the weights are widened at each call, which is an emulation: same numbers,
fewer bytes held, no time saved.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from helpers.weights.quantization.linear import Stored, replace_linears

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max  # 448


def scale_of(weight: torch.Tensor, per_channel: bool = True) -> torch.Tensor:
    """What weights (out, in) are divided by, so that the largest becomes 448.

    It is (out, 1), a scale for each output channel, or (1, 1).
    """
    dims = 1 if per_channel else (0, 1)
    largest = weight.abs().amax(dims, keepdim=True)
    return largest.float().clamp(min=1e-12) / LARGEST


def quantize(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x / scale in float8_e4m3fn, rounded to nearest; what is too large becomes the largest number."""
    return (x.float() / scale).clamp(-LARGEST, LARGEST).to(E4M3)


def dequantize(q: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The numbers that q stands for."""
    return (q.float() * scale).to(dtype)


def has_units(device: torch.device | str) -> bool:
    """Whether the device multiplies eight-bit floats itself (NVIDIA: compute capability 8.9 and up)."""
    device = torch.device(device)
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


class Fp8Linear(Stored):
    """An nn.Linear whose weight (out, in) is kept in one byte a number.

    With units for it, inputs are quantized too, a scale a token, and eight-bit numbers
    are multiplied; without, the weight is widened to the input's dtype.
    """

    def __init__(self, linear: nn.Linear, per_channel: bool = True):
        super().__init__()
        scale = scale_of(linear.weight.detach(), per_channel)
        self.register_buffer("q", quantize(linear.weight.detach(), scale))
        self.register_buffer("scale", scale)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not has_units(x.device):
            return F.linear(x, dequantize(self.q, self.scale, x.dtype), self.bias)
        tokens = x.reshape(-1, self.in_features)
        token_scale = scale_of(tokens)
        channel_scale = self.scale.T.expand(1, self.out_features).contiguous()
        q = quantize(tokens, token_scale)
        dtype = torch.bfloat16  # the one that it can give with a scale a token
        y = torch._scaled_mm(q, self.q.T, token_scale, channel_scale, out_dtype=dtype)
        y = y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias


def install(model: nn.Module, per_channel: bool = True) -> nn.Module:
    """Replace the model's nn.Linear layers, in place, but not the one that makes the logits (it is often the embedding,
    too, and production leaves it alone as well). Returns the model."""
    replace_linears(model, lambda linear: Fp8Linear(linear, per_channel), skip=[model.get_output_embeddings()])
    return model


def linear_bytes(model: nn.Module) -> int:
    """Bytes of the layers' matrices, scales included; without the head and the embedding."""
    head = model.get_output_embeddings()
    eight = sum(m.q.nbytes + m.scale.nbytes for m in model.modules() if isinstance(m, Fp8Linear))
    return eight + sum(m.weight.nbytes for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
