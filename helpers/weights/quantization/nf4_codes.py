"""NF4 from scratch: 16 levels at a normal distribution's quantiles, a scale for each block of 64 (notebook 02).

Dettmers et al., "QLoRA", 2023. Weights look normal, so levels at equally likely quantiles use all 16 codes far more
evenly than an even grid does, which leaves its ends nearly empty. The scales, one for 64 weights, go into eight bits in
turn (double quantization). Codes and scales are bitsandbytes' to the bit; `nf4.py` beside this loads models with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.weights.quantization.linear import Stored, replace_linears

OUTERMOST = 0.9677083  # the probability at which the outermost level lies: 1 - (1/30 + 1/32) / 2, the paper's offset


def quantile_levels() -> Tensor:
    """The 16 levels (16,) from -1 to 1: seven quantiles below zero, zero, eight above, over the largest."""

    def quantiles(count: int) -> Tensor:
        probabilities = torch.linspace(OUTERMOST, 0.5, count + 1)[:-1]
        return torch.special.ndtri(probabilities.double()).float()

    levels = torch.cat([-quantiles(7), torch.zeros(1), quantiles(8)]).sort().values
    return levels / levels.abs().max()


LEVELS = quantile_levels()


def nf4_codes(x: Tensor, block: int = 64) -> tuple[Tensor, Tensor]:
    """Codes uint8 in x's shape, 0 to 15, and the largest magnitude of each block of `block`
    neighbours, float32 (blocks,)."""
    blocks = _blocks(x, block)
    absmax = blocks.abs().amax(dim=1)
    shares = blocks * (1 / absmax.clamp(min=1e-38))[:, None]  # from -1 to 1
    midpoints = (LEVELS[:-1] + LEVELS[1:]) / 2
    codes = torch.bucketize(shares, midpoints.to(x.device))
    return codes.to(torch.uint8).reshape(x.shape), absmax


def _blocks(x: Tensor, block: int) -> Tensor:
    """x as (blocks, block), float32."""
    if block < 2 or block % 2 or x.numel() % block:
        raise CourseError(f"Blocks of {block} don't divide {x.numel()} weights evenly: take 64 or 32.")
    if not x.isfinite().all():
        raise CourseError("Weights that are NaN or infinite have no codes: load or train the model again.")
    return x.detach().float().reshape(-1, block)


def from_nf4(codes: Tensor, absmax: Tensor, block: int = 64) -> Tensor:
    """The numbers that the codes stand for: level times the block's scale, float32."""
    levels = LEVELS.to(codes.device)[codes.int()].reshape(-1, block)
    return (levels * absmax[:, None]).reshape(codes.shape)


def dynamic_levels() -> Tensor:
    """The 256 levels of the eight-bit "dynamic" format for scales: seven decades, each with twice as many levels as the
    one below, both signs, zero and one (Dettmers, "8-Bit Approximations for Parallelism in Deep Learning", 2015)."""
    decades = []
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1)
        decades.append(10 ** (exponent - 6) * (edges[:-1] + edges[1:]) / 2)
    positive = torch.cat(decades)
    levels = torch.cat([-positive, positive, torch.tensor([0.0, 1.0])]).sort().values
    levels[0] = -1  # so that a block's largest magnitude fits if it is negative
    return levels


def double_quantize(absmax: Tensor, block: int = 256) -> tuple[Tensor, Tensor, Tensor]:
    """The blocks' scales (blocks,) in eight bits: codes uint8 (blocks,), the largest magnitude of each `block` of them
    (blocks / block rounded up,), and their mean, which is taken off before.

    The nearest level is taken. bitsandbytes' kernel for CPUs looks it up in a table of 65,536 shares, and so takes its
    neighbour now and then, where a share is within a hundred-thousandth of the middle between two.
    """
    mean = absmax.mean()
    padded = F.pad(absmax - mean, (0, -len(absmax) % block)).reshape(-1, block)
    largest = padded.abs().amax(dim=1)
    shares = padded / torch.where(largest > 0, largest, 1.0)[:, None]
    levels = dynamic_levels().to(absmax.device)
    codes = torch.bucketize(shares, (levels[:-1] + levels[1:]) / 2)
    return codes.to(torch.uint8).flatten()[: len(absmax)], largest, mean


def from_double(codes: Tensor, largest: Tensor, mean: Tensor, block: int = 256) -> Tensor:
    """The scales (blocks,) that the codes stand for, float32."""
    levels = dynamic_levels().to(codes.device)[codes.int()]
    return levels * largest.repeat_interleave(block)[: len(codes)] + mean


class Nf4Linear(Stored):
    """A linear layer with its weight (out, in) in NF4: codes two to a byte, scales in eight bits.

    `forward` widens the weight: fewer bytes held, no time saved.
    """

    def __init__(self, linear: nn.Linear, block: int = 64):
        super().__init__()
        self.in_features, self.out_features, self.block = linear.in_features, linear.out_features, block
        self.bias = linear.bias
        codes, absmax = nf4_codes(linear.weight, block)
        codes = codes.flatten()
        scale_codes, largest, mean = double_quantize(absmax)
        self.register_buffer("stored", codes[::2] << 4 | codes[1::2])  # the first in the high half
        self.register_buffer("scale_codes", scale_codes)
        self.register_buffer("largest", largest)
        self.register_buffer("mean", mean)

    @property
    def codes(self) -> Tensor:
        """The codes (out, in), uint8."""
        return torch.stack([self.stored >> 4, self.stored & 15], dim=-1).reshape(self.out_features, self.in_features)

    def absmax(self) -> Tensor:
        """The blocks' scales (blocks,), float32, as eight bits have kept them."""
        return from_double(self.scale_codes, self.largest, self.mean)

    def dequantized(self) -> Tensor:
        """The weight (out, in) that the codes stand for, in float32."""
        return from_nf4(self.codes, self.absmax(), self.block)

    @property
    def stored_bits(self) -> int:
        """Bits of codes and scales."""
        return 8 * sum(buffer.nbytes for buffer in self.buffers(recurse=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dequantized().to(x.dtype), self.bias)


def install(model: nn.Module, block: int = 64) -> nn.Module:
    """Put all linear weights of the model into NF4, in place, but the one that makes the logits. Returns the model."""
    replace_linears(model, lambda linear: Nf4Linear(linear, block), skip=[model.get_output_embeddings()])
    return model
