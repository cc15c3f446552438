"""Floating-point numbers from scratch: how a format lays out its bits, what it rounds away, where it ends: notebook 01.

A number is sign x 1.mantissa x 2^(exponent - bias): the exponent's bits give the range, the mantissa's the precision.
IEEE 754 (2008) has float32 and float16; bfloat16: Kalamkar et al. 2019; the two 8-bit formats: Micikevicius et al.,
"FP8 Formats for Deep Learning", 2022, and the OCP standard made of it (E4M3 has no infinity, so that it gets to 448).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Fields(NamedTuple):
    """The three parts of a number's bits, as whole numbers."""

    sign: int
    exponent: int
    mantissa: int


@dataclass(frozen=True)
class FloatFormat:
    """A format of one sign bit, `exponent_bits` and `mantissa_bits`.

    The largest exponent is kept for infinity and NaN. With `infinity=False` it holds numbers too, all but the last
    pattern, which is NaN; what is too large becomes the largest number (as in torch from 2.12 on; NaN before).
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    infinity: bool = True

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """What is taken from the exponent field, so that it can say small numbers, too."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def largest_code(self) -> int:
        """Exponent and mantissa of the largest finite number, read as one whole number."""
        top = (2**self.exponent_bits - 1) << self.mantissa_bits
        return top - 1 if self.infinity else top + 2**self.mantissa_bits - 2

    @property
    def overflow_code(self) -> int:
        """The code of what is too large: infinity, or the largest number where there is none."""
        return self.largest_code + self.infinity

    @property
    def nan_code(self) -> int:
        quiet = 1 << (self.mantissa_bits - 1)  # the bit that hardware sets in the NaN it makes
        return self.overflow_code + quiet if self.infinity else self.largest_code + 1

    @property
    def largest(self) -> float:
        return from_bits(Fields(0, *divmod(self.largest_code, 2**self.mantissa_bits)), self)

    @property
    def overflows_from(self) -> float:
        """Sizes from here on are rounded beyond the largest number: half a step above it."""
        step = 2.0 ** (math.frexp(self.largest)[1] - 1 - self.mantissa_bits)
        return self.largest + step / 2

    @property
    def smallest_normal(self) -> float:
        """Below it numbers lose precision, bit by bit."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest(self) -> float:
        """The smallest number above 0; half of it, and what is less, becomes 0."""
        return 2.0 ** (1 - self.bias - self.mantissa_bits)

    @property
    def step_at_1(self) -> float:
        """From 1 to the next number: the largest relative error of rounding is half of it."""
        return 2.0**-self.mantissa_bits

    def dtype(self) -> torch.dtype:
        """torch's name for it."""
        return getattr(torch, self.name)


FORMATS = {
    f.name: f
    for f in (
        FloatFormat("float32", 8, 23),
        FloatFormat("float16", 5, 10),
        FloatFormat("bfloat16", 8, 7),
        FloatFormat("float8_e4m3fn", 4, 3, infinity=False),
        FloatFormat("float8_e5m2", 5, 2),
    )
}


def to_bits(x: float, fmt: FloatFormat) -> Fields:
    """The bits of x in a format, rounded to the nearest number there.

    Of two equally near ones it is the one with the even mantissa.
    """
    sign, size = int(math.copysign(1, x) < 0), abs(x)
    if math.isnan(x):
        code = fmt.nan_code
    elif math.isinf(x):
        code = fmt.overflow_code
    else:
        lowest = 1 - fmt.bias
        # size is 1.something x 2^exponent, or less where the exponent is the lowest
        exponent = max(math.frexp(size)[1] - 1, lowest) if size else lowest
        # Python's round takes ties to the even number
        steps = round(size / 2.0 ** (exponent - fmt.mantissa_bits))
        # A mantissa that was rounded up to 2 carries into the exponent by itself. So
        # does a number below the normal ones: there the exponent field is 0, and the
        # leading 1 is missing from `steps`.
        code = steps + ((exponent + fmt.bias - 1) << fmt.mantissa_bits)
        code = min(code, fmt.overflow_code)
    return Fields(sign, *divmod(code, 2**fmt.mantissa_bits))


def value_of(sign: int, exponent: int, mantissa: int, exponent_bits: int, mantissa_bits: int) -> float:
    """The finite number that the three fields say, each a whole number."""
    bias = 2 ** (exponent_bits - 1) - 1
    if exponent == 0:  # no leading 1 here: the only way to say 0 and what is next to it
        size = mantissa / 2**mantissa_bits * 2.0 ** (1 - bias)
    else:
        size = (1 + mantissa / 2**mantissa_bits) * 2.0 ** (exponent - bias)
    return -size if sign else size


def from_bits(fields: Fields, fmt: FloatFormat) -> float:
    """The number that a format's bits say, infinity and NaN included."""
    code = (fields.exponent << fmt.mantissa_bits) + fields.mantissa
    if code <= fmt.largest_code:
        return value_of(*fields, fmt.exponent_bits, fmt.mantissa_bits)
    if code > fmt.overflow_code:
        return math.nan
    return -math.inf if fields.sign else math.inf


def rounded(x: torch.Tensor, fmt: FloatFormat) -> torch.Tensor:
    """Every number of x (float32 or float64, any shape) as the format would keep it,
    in x's own dtype."""
    exact = x.double()
    _, exponent = torch.frexp(exact)
    # below the normal numbers the steps don't get finer
    exponent = (exponent - 1).clamp(min=1 - fmt.bias)
    # from one number to the next, here
    step = torch.ldexp(torch.ones_like(exact), exponent - fmt.mantissa_bits)
    near = torch.round(exact / step) * step  # of two equally near ones the even one
    overflowed = math.inf if fmt.infinity else fmt.largest
    beyond = torch.copysign(torch.full_like(exact, overflowed), exact)
    kept = torch.where(near.abs() > fmt.largest, beyond, near)
    return torch.where(exact.isinf(), beyond, kept).to(x.dtype)


class Fate(NamedTuple):
    """What becomes of a tensor's numbers other than 0 in a format: the shares that are too large for it and that become
    0, and the median relative error of those that are neither (NaN without any)."""

    overflow: float
    vanish: float
    error: float


def fate(x: torch.Tensor, fmt: FloatFormat) -> Fate:
    """What becomes of x's numbers (any shape); the error is that of 100,000 of them, evenly picked."""
    x = x.detach().flatten()
    x = x[x != 0].float()
    over, gone = x.abs() >= fmt.overflows_from, x.abs() <= fmt.smallest / 2  # of two ends the even one: beyond, and 0
    left = x[~over & ~gone]
    left = left[:: max(1, len(left) // 100_000)].double()
    middle = (rounded(left, fmt) / left - 1).abs().median().item() if len(left) else math.nan
    return Fate(over.double().mean().item(), gone.double().mean().item(), middle)
