"""Weights as small integers: absmax and zero-point codes, a scale for a tensor, a channel or a group (notebook 02).

Rounding each weight to the nearest number of an evenly spaced grid is what every other method starts from, and what it
has to beat. The two grids are those of Dettmers et al., "LLM.int8()", 2022, section 2.1: absmax (symmetric, zero is
code 0) and zero-point (from the smallest number to the largest, zero is a code of its own).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.weights.quantization.linear import Stored, replace_linears

Group = str | int  # "tensor", "channel" or how many neighbours of a row share a scale


def absmax_codes(weight: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Codes int8 (out, in) and scales float32 (out, 1): a row's largest weight gets the
    largest code, weight is about codes * scales. A row of zeros has scale 1."""
    levels = 2 ** (bits - 1) - 1  # 127 for 8 bits: codes from -127 to 127
    absmax = weight.float().abs().amax(dim=-1, keepdim=True)
    absmax = torch.where(absmax > 0, absmax, levels)
    # bitsandbytes multiplies by 127 / absmax, too: dividing by the scale would round some
    # ties the other way.
    codes = torch.round(weight.float() * (levels / absmax)).to(torch.int8)
    return codes, absmax / levels


@dataclass(frozen=True)
class Grid:
    """The numbers (code - zero) * scale that codes of `bits` bits stand for.

    The tensors are float32 and broadcast against the numbers; `inverse`, codes to a unit, is 1 / scale but for a
    rounding.
    """

    scale: Tensor
    inverse: Tensor
    bits: int
    symmetric: bool
    zero: Tensor | int = 0

    @property
    def lowest(self) -> int:
        """The smallest code."""
        return -self.highest if self.symmetric else 0

    @property
    def highest(self) -> int:
        """The largest code."""
        return 2 ** (self.bits - 1) - 1 if self.symmetric else 2**self.bits - 1

    def encode(self, x: Tensor) -> Tensor:
        """The codes of the nearest numbers, int8 (symmetric) or uint8, in x's shape; what lies outside gets an end."""
        codes = torch.round(x.float() * self.inverse) + self.zero
        return codes.clamp(self.lowest, self.highest).to(torch.int8 if self.symmetric else torch.uint8)

    def decode(self, codes: Tensor) -> Tensor:
        """What the codes stand for, in float32."""
        return (codes.float() - self.zero) * self.scale

    def round(self, x: Tensor) -> Tensor:
        """The nearest numbers of the grid, in x's dtype."""
        return self.decode(self.encode(x)).to(x.dtype)

    def with_scale_in(self, dtype: torch.dtype) -> Grid:
        """The grid with its scale rounded to `dtype`, in which it will be stored: codes are made for that scale."""
        scale = self.scale.to(dtype).float()
        return replace(self, scale=scale, inverse=1 / scale)


def grid_of(x: Tensor, bits: int = 8, symmetric: bool = True) -> Grid:
    """The grid that just holds the numbers x (..., n), a scale (..., 1) for each slice along the last dimension.

    Raises:
        CourseError: bits aren't 2 to 8; a number is NaN or infinite.
    """
    if not 2 <= bits <= 8:
        raise CourseError(f"An integer weight has 2 to 8 bits here, not {bits}.")
    x = x.detach().float()
    if symmetric:
        span, levels = x.abs().amax(dim=-1, keepdim=True), 2 ** (bits - 1) - 1
    else:  # zero is always inside, so that a weight of 0 stays 0
        low, high = x.amin(dim=-1, keepdim=True).clamp(max=0), x.amax(dim=-1, keepdim=True).clamp(min=0)
        span, levels = high - low, 2**bits - 1
    if not span.isfinite().all():
        raise CourseError("Weights that are NaN or infinite have no grid: load or train the model again.")
    span = torch.where(span > 1e-30, span, float(levels))  # zeros, or nearly: scale 1
    scale, inverse = span / levels, levels / span
    zero = 0 if symmetric else torch.round(-low * inverse).clamp(0, levels)
    return Grid(scale, inverse, bits, symmetric, zero)


def grouped(weight: Tensor, group: Group) -> Tensor:
    """The weight (out, in) so that its last dimension shares a scale: (1, out * in) for "tensor", (out, in) for
    "channel", (out, in / group, group) for a number. CourseError where that doesn't divide a row."""
    if group == "tensor":
        return weight.reshape(1, -1)
    if group == "channel":
        return weight
    if isinstance(group, str) or group < 1:
        raise CourseError(f'A group is "tensor", "channel" or a number of weights, not {group!r}.')
    if weight.shape[-1] % group:
        raise CourseError(
            f"Groups of {group} don't divide rows of {weight.shape[-1]} weights: take a divisor, such as "
            f'{_largest_divisor(weight.shape[-1], group)}, or "channel".'
        )
    return weight.unflatten(-1, (-1, group))


def _largest_divisor(number: int, at_most: int) -> int:
    return next(d for d in range(min(number, at_most), 0, -1) if number % d == 0)


def weight_grid(weight: Tensor, bits: int, group: Group = "channel", symmetric: bool = True) -> Grid:
    """The grid of a weight (out, in), for `grouped(weight, group)`: scales (1, 1), (out, 1) or (out, groups, 1).

    Scales of channels are float32 and cost nothing. Those of groups are bfloat16: half the bytes, the same range, and
    what packed four-bit kernels and checkpoints hold.
    """
    grid = grid_of(grouped(weight, group), bits, symmetric)
    return grid if isinstance(group, str) else grid.with_scale_in(torch.bfloat16)


def round_to_nearest(weight: Tensor, bits: int, group: Group = "channel", symmetric: bool = True) -> Tensor:
    """The weight (out, in) with each number the nearest of its grid, in its dtype: RTN, the method without a method."""
    return weight_grid(weight, bits, group, symmetric).round(grouped(weight, group)).reshape(weight.shape)


class IntegerLinear(Stored):
    """A linear layer that keeps codes (out, in) and their grid instead of its weight; `bias` (out,) or None stays.

    Buffers: `stored`, the codes, two to a byte where they have up to four bits; `scales` (out, groups), where a whole
    channel is one group; `zero_points` (out, groups), or None if the grid is symmetric. `forward` widens the weight:
    fewer bytes held, no time saved (the packed kernels of `packed.py` save both).
    """

    def __init__(self, codes: Tensor, grid: Grid, bias: nn.Parameter | None = None):
        super().__init__()
        self.out_features, self.in_features = codes.shape
        self.bits, self.symmetric, self.bias = grid.bits, grid.symmetric, bias
        scale_dtype = torch.bfloat16 if grid.scale.ndim == 3 else torch.float32  # as `weight_grid` made them
        self.register_buffer("stored", _packed(codes) if grid.bits <= 4 else codes)
        self.register_buffer("scales", self._by_row(grid.scale).to(scale_dtype))
        self.register_buffer("zero_points", None if grid.symmetric else self._by_row(grid.zero).to(torch.uint8))

    @classmethod
    def of(cls, linear: nn.Linear, bits: int = 8, group: Group = "channel", symmetric: bool = True) -> IntegerLinear:
        """The layer with its weight rounded to nearest."""
        weight = linear.weight.detach()
        grid = weight_grid(weight, bits, group, symmetric)
        return cls(grid.encode(grouped(weight, group)).reshape(weight.shape), grid, linear.bias)

    def _by_row(self, of_grid: Tensor) -> Tensor:
        """(1, 1), (out, 1) or (out, groups, 1) as (out, groups)."""
        return of_grid.flatten(1).expand(self.out_features, -1).contiguous()

    def integer_codes(self) -> Tensor:
        """The codes (out, in), one to a byte: int8 where the grid is symmetric, else uint8."""
        if self.bits > 4:
            return self.stored
        return _unpacked(self.stored, self.in_features, torch.int8 if self.symmetric else torch.uint8)

    def dequantized(self) -> Tensor:
        """The weight (out, in) that the codes stand for, in float32."""
        scale = self.scales.float()[..., None]
        zero = 0 if self.symmetric else self.zero_points.float()[..., None]
        codes = self.integer_codes().reshape(*self.scales.shape, -1)
        return Grid(scale, 1 / scale, self.bits, self.symmetric, zero).decode(codes).flatten(1)

    @property
    def stored_bits(self) -> int:
        """Bits in a file that packs codes without gaps (two or three bits are held in four), with scales and zeros."""
        scale_bits = 8 * self.scales.element_size() + (0 if self.symmetric else self.bits)
        return self.bits * self.out_features * self.in_features + scale_bits * self.scales.numel()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dequantized().to(x.dtype), self.bias)


def _packed(codes: Tensor) -> Tensor:
    """Four-bit codes (out, in) two to a byte, (out, in / 2 rounded up), the first in the high half; signed ones plus
    eight."""
    codes = F.pad(codes, (0, codes.shape[-1] % 2))
    codes = (codes + 8 if codes.dtype == torch.int8 else codes).to(torch.uint8)
    return codes[:, ::2] << 4 | codes[:, 1::2]


def _unpacked(stored: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    codes = torch.stack([stored >> 4, stored & 15], dim=-1).flatten(1)[:, :columns]
    return codes.to(torch.int8) - 8 if dtype == torch.int8 else codes


def install(model: nn.Module, bits: int = 8, group: Group = "channel", symmetric: bool = True) -> nn.Module:
    """Round all linear weights of the model to nearest, in place, but the one that makes the logits (often the
    embedding, too). Returns the model."""
    head = model.get_output_embeddings()
    replace_linears(model, lambda linear: IntegerLinear.of(linear, bits, group, symmetric), skip=[head])
    return model


def to_dense(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Put the numbers that the codes stand for back into nn.Linear layers, in place: the same function without widening
    at each step, to judge answers fast. Returns the model."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if hasattr(module, "dequantized"):
            model.set_submodule(name, dense_linear(module.dequantized().to(dtype), module.bias))
    return model


def dense_linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """An nn.Linear with this weight (out, in)."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = None if bias is None else nn.Parameter(bias.detach().to(weight.dtype), requires_grad=False)
    return linear


def linear_bytes(model: nn.Module) -> int:
    """Bytes held by the weights of all linear layers but the output's, with scales and zeros, without biases:
    quantized ones of the course and of bitsandbytes, and dense ones."""
    head = model.get_output_embeddings()
    return sum(_bytes_of(module) for module in model.modules() if module is not head)


def _bytes_of(module: nn.Module) -> int:
    if isinstance(module, Stored):
        return sum(buffer.nbytes for buffer in module.buffers(recurse=False))
    if not isinstance(module, nn.Linear):
        return 0
    weight, tensors = module.weight, [module.weight]
    if (state := getattr(weight, "quant_state", None)) is not None:  # bitsandbytes' four bits
        tensors += [state.absmax, state.code, *((state.state2.absmax, state.state2.code) if state.nested else ())]
    for holder in (weight, getattr(module, "state", None)):  # its eight bits: the scales move at the first call
        if (scales := getattr(holder, "SCB", None)) is not None:
            tensors.append(scales)
    return sum(tensor.nbytes for tensor in tensors)
