"""Bits and rounding as torch has them, in every corner; and plausible mistakes are seen."""

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.weights.precision.formats import FORMATS, FloatFormat, fate, from_bits, rounded, to_bits, value_of

SMALL = [f for f in FORMATS.values() if f.bits < 32]
each_small = pytest.mark.parametrize("fmt", SMALL, ids=lambda f: f.name)
WORD = {8: torch.uint8, 16: torch.int16}


def every_number(fmt):
    """All bit patterns of a small format, as (codes, values in float32)."""
    codes = torch.arange(2**fmt.bits, dtype=torch.int32)
    words = codes.to(torch.uint8) if fmt.bits == 8 else torch.where(codes < 2**15, codes, codes - 2**16).to(torch.int16)
    return codes.tolist(), words.view(fmt.dtype()).float()


def corners(fmt):
    """All the format's numbers, all halves between neighbours, what lies beside both, and what is too large."""
    numbers = every_number(fmt)[1]
    numbers = numbers[numbers.isfinite()].sort().values
    halves = ((numbers[1:].double() + numbers[:-1].double()) / 2).float()
    exact = torch.cat([numbers, halves, torch.tensor([fmt.largest * (1 + fmt.step_at_1 / 4)])])
    both = [torch.nextafter(exact, torch.full_like(exact, way)) for way in (-math.inf, math.inf)]
    special = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 3e38, -3e38, 1e-45])
    return torch.cat([exact, *both, special])


def saturates():
    """Whether torch's own cast to e4m3 gives the largest number (from 2.12 on) or NaN."""
    return torch.tensor(1e6).to(torch.float8_e4m3fn).float().isfinite()


def differences(round_, fmt, x):
    """How many of the numbers are rounded otherwise than by torch, the sign of zero included."""
    if not fmt.infinity and not saturates():
        x = x[x.abs() <= fmt.largest]
    ours, theirs = round_(x, fmt), x.to(fmt.dtype()).float()
    same = (ours == theirs) & (ours.signbit() == theirs.signbit()) | (ours.isnan() & theirs.isnan())
    return (~same).sum().item()


@each_small
def test_rounding_is_torch_s_in_every_corner(fmt):
    assert differences(rounded, fmt, corners(fmt)) == 0


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=64))
def test_rounding_is_torch_s_on_any_bits(patterns):
    x = torch.tensor([struct.unpack("f", struct.pack("I", p))[0] for p in patterns])
    assert [differences(rounded, fmt, x) for fmt in SMALL] == [0] * len(SMALL)


def test_float32_from_float64_and_dtypes_are_kept():
    x = torch.randn(1000, dtype=torch.float64) * 10.0 ** torch.randint(-46, 40, (1000,))
    assert torch.equal(rounded(x, FORMATS["float32"]), x.float().double())
    assert rounded(x.float(), FORMATS["float16"]).dtype == torch.float32


def half_up(x, fmt):
    step = torch.ldexp(torch.ones_like(x), (torch.frexp(x)[1] - 1).clamp(min=1 - fmt.bias) - fmt.mantissa_bits)
    return torch.where(
        x.abs() <= fmt.largest, torch.copysign((x.abs() / step + 0.5).floor() * step, x), x.to(fmt.dtype()).float()
    )


def truncated(x, fmt):
    near = rounded(x, fmt)
    step = torch.ldexp(torch.ones_like(x), (torch.frexp(x)[1] - 1).clamp(min=1 - fmt.bias) - fmt.mantissa_bits)
    return torch.where(near.isfinite(), torch.trunc(x / step) * step, near)


def no_subnormals(x, fmt):
    near = rounded(x, fmt)
    return torch.where(near.abs() < fmt.smallest_normal, torch.copysign(torch.zeros_like(near), x), near)


def no_overflow(x, fmt):
    wide = FloatFormat("wide", 8, fmt.mantissa_bits)
    near = rounded(x, wide)
    return torch.where(near.abs() < fmt.smallest_normal, rounded(x, fmt), near)


def with_infinity(x, fmt):
    return rounded(x, FloatFormat(fmt.name, fmt.exponent_bits, fmt.mantissa_bits, infinity=not fmt.infinity))


@pytest.mark.parametrize("mistake", [half_up, truncated, no_subnormals, no_overflow, with_infinity])
@each_small
def test_each_mistake_in_rounding_is_seen(mistake, fmt):
    if mistake in (no_overflow, with_infinity) and (fmt.name == "bfloat16" or not (fmt.infinity or saturates())):
        return  # bfloat16 ends where the float32 ends that the numbers come in; an older torch isn't compared there
    assert differences(mistake, fmt, corners(fmt)) > 0


@each_small
def test_bits_are_torch_s(fmt):
    codes, values = every_number(fmt)
    for code, value in zip(codes, values.tolist()):
        fields = to_bits(value, fmt)
        made = (fields.sign << (fmt.bits - 1)) + (fields.exponent << fmt.mantissa_bits) + fields.mantissa
        if math.isnan(value):
            assert math.isnan(from_bits(fields, fmt))
        else:
            assert made == code and from_bits(fields, fmt) == value


@settings(deadline=None)
@given(st.floats(width=32), st.sampled_from(SMALL))
def test_bits_of_any_number_say_what_rounding_says(x, fmt):
    expected = rounded(torch.tensor(x, dtype=torch.float64), fmt).item()
    value = from_bits(to_bits(x, fmt), fmt)
    assert value == expected or (math.isnan(value) and math.isnan(expected))


@given(st.floats(width=32))
def test_float32_s_bits_are_the_machine_s(x):
    sign, exponent, mantissa = to_bits(x, FORMATS["float32"])
    if not math.isnan(x):
        assert (sign << 31) + (exponent << 23) + mantissa == struct.unpack("I", struct.pack("f", x))[0]


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda f: f.name)
def test_the_ends_are_torch_s(fmt):
    info = torch.finfo(fmt.dtype())
    assert (fmt.largest, fmt.smallest_normal, fmt.step_at_1, fmt.bits) == (info.max, info.tiny, info.eps, info.bits)
    assert rounded(torch.tensor(fmt.smallest), fmt) == fmt.smallest
    assert rounded(torch.tensor(fmt.smallest / 2, dtype=torch.float64), fmt) == 0


def test_e4m3_has_no_infinity_and_gets_to_448():
    fmt = FORMATS["float8_e4m3fn"]
    assert fmt.largest == 448 and to_bits(448, fmt) == (0, 15, 6)
    assert to_bits(math.inf, fmt) == (0, 15, 6) and to_bits(math.nan, fmt) == (0, 15, 7)
    assert FloatFormat("e4m3 as IEEE would", 4, 3).largest == 240


def test_fields_as_a_learner_writes_them():
    assert value_of(0, 15, 512, 5, 10) == 1.5
    assert value_of(1, 0, 1, 5, 10) == -FORMATS["float16"].smallest


def test_what_becomes_of_numbers():
    x = torch.tensor([0.0, 1e6, -1e6, 1e-9, 1.0, 2.0, 1 + 2**-11])
    shares = fate(x, FORMATS["float16"])
    assert shares.overflow == pytest.approx(2 / 6) and shares.vanish == pytest.approx(1 / 6) and shares.error == 0
    assert fate(torch.tensor([1e-9]), FORMATS["float16"]).vanish == 1
    assert math.isnan(fate(torch.tensor([1e-9]), FORMATS["float16"]).error)
    assert fate(torch.full((10,), 1.003), FORMATS["bfloat16"]).error == pytest.approx(0.003 / 1.003, rel=1e-3)


@each_small
def test_what_is_too_large_is_what_is_rounded_beyond_the_largest(fmt):
    ends = torch.tensor([fmt.largest, fmt.overflows_from * (1 - 1e-6), fmt.overflows_from, fmt.largest * 2]).float()
    wanted = [0, 0, 1, 1]
    assert [fate(x.view(1), fmt).overflow for x in ends] == wanted
    if fmt.infinity:
        assert rounded(ends, fmt).isinf().tolist() == [bool(x) for x in wanted]
    assert fate(torch.tensor([1e5], dtype=torch.bfloat16), FORMATS["float16"]).overflow == 1


@each_small
def test_what_vanishes_is_what_is_rounded_to_0(fmt):
    x = corners(fmt)
    x = x[x.isfinite() & (x != 0)]
    assert fate(x, fmt).vanish == pytest.approx((rounded(x, fmt) == 0).double().mean().item(), abs=1e-12)


@pytest.mark.parametrize("fmt", [f for f in SMALL if f.bits == 8], ids=lambda f: f.name)
def test_bits_round_as_tensors_do_in_every_corner(fmt):
    x = corners(fmt)
    one_by_one = torch.tensor([from_bits(to_bits(number, fmt), fmt) for number in x.tolist()])
    torch.testing.assert_close(one_by_one, rounded(x, fmt), rtol=0, atol=0, equal_nan=True)
