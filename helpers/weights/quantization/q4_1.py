"""llama.cpp's Q4_1: the grid that the course's base model has been through once (notebook 02).

Blocks of 32 weights of a row share a scale and a minimum, both in float16; a weight is minimum + code * scale, the code
from 0 to 15: 5 bits a weight. The minimum and the maximum of a block stay, so a block that was rounded to this grid has
the same grid again.
"""

from __future__ import annotations

import torch

from helpers.weights.quantization.integer import grouped

BLOCK, BITS = 32, 5  # weights that share a scale and a minimum; bits of a weight with its part of these


def through_q4_1(weight: torch.Tensor) -> torch.Tensor:
    """The weight (out, in) as Q4_1 keeps it, in its own dtype. CourseError where blocks of 32 don't divide a row."""
    blocks = grouped(weight.detach().float(), BLOCK)
    low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
    scale = (high - low) / 15
    codes = torch.round((blocks - low) / scale.clamp(min=1e-30))
    return (low.half().float() + codes * scale.half().float()).reshape(weight.shape).to(weight.dtype)
