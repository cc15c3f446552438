"""Wrong answers to the exercises of notebook 01."""

import math

import torch


def fraction(mantissa, mantissa_bits):
    return mantissa / 2**mantissa_bits


def bias_of(exponent_bits):
    return 2 ** (exponent_bits - 1) - 1


def sign_forgotten(sign, exponent, mantissa, exponent_bits, mantissa_bits):
    return (1 + fraction(mantissa, mantissa_bits)) * 2.0 ** (exponent - bias_of(exponent_bits))


def no_subnormals(sign, exponent, mantissa, exponent_bits, mantissa_bits):
    size = (1 + fraction(mantissa, mantissa_bits)) * 2.0 ** (exponent - bias_of(exponent_bits))
    return -size if sign else size


def subnormals_become_0(sign, exponent, mantissa, exponent_bits, mantissa_bits):
    return no_subnormals(sign, exponent, mantissa, exponent_bits, mantissa_bits) if exponent else 0.0


def subnormal_power_of_exponent_0(sign, exponent, mantissa, exponent_bits, mantissa_bits):
    if exponent:
        return no_subnormals(sign, exponent, mantissa, exponent_bits, mantissa_bits)
    return (-1) ** sign * fraction(mantissa, mantissa_bits) * 2.0 ** -bias_of(exponent_bits)


def no_bias(sign, exponent, mantissa, exponent_bits, mantissa_bits):
    return (-1) ** sign * (1 + fraction(mantissa, mantissa_bits)) * 2.0**exponent


def bias_of_a_power_of_two(sign, exponent, mantissa, exponent_bits, mantissa_bits):
    size = (1 + fraction(mantissa, mantissa_bits)) * 2.0 ** (exponent - 2 ** (exponent_bits - 1))
    return -size if sign else size


def no_leading_1(sign, exponent, mantissa, exponent_bits, mantissa_bits):
    return (-1) ** sign * fraction(mantissa, mantissa_bits) * 2.0 ** (exponent - bias_of(exponent_bits))


def infinity_at_the_top(sign, exponent, mantissa, exponent_bits, mantissa_bits):
    if exponent == 2**exponent_bits - 1:
        return math.inf
    size = no_subnormals(0, exponent, mantissa, exponent_bits, mantissa_bits)
    size = size if exponent else fraction(mantissa, mantissa_bits) * 2.0 ** (1 - bias_of(exponent_bits))
    return -size if sign else size


def on_the_grid(x, fmt, to_step=torch.round, lowest=None, beyond=None):
    """Rounded as in the course, but for what is given."""
    exponent = torch.frexp(x.double())[1] - 1
    exponent = exponent.clamp(min=1 - fmt.bias if lowest is None else lowest)
    step = torch.ldexp(torch.ones_like(x.double()), exponent - fmt.mantissa_bits)
    near = to_step(x.double() / step) * step
    end = (math.inf if fmt.infinity else fmt.largest) if beyond is None else beyond
    end = torch.copysign(torch.full_like(near, end), x.double())
    return torch.where((near.abs() > fmt.largest) | x.double().isinf(), end, near).to(x.dtype)


def cut_off(x, fmt):
    return on_the_grid(x, fmt, torch.trunc)


def ties_up(x, fmt):
    return on_the_grid(x, fmt, lambda steps: torch.sign(steps) * torch.floor(steps.abs() + 0.5))


def no_subnormals_there(x, fmt):
    return on_the_grid(x, fmt, lowest=-200)


def all_below_normal_is_0(x, fmt):
    return torch.where(x.abs() < fmt.smallest_normal, torch.zeros_like(x), on_the_grid(x, fmt))


def no_end(x, fmt):
    exponent = (torch.frexp(x.double())[1] - 1).clamp(min=1 - fmt.bias)
    step = torch.ldexp(torch.ones_like(x.double()), exponent - fmt.mantissa_bits)
    return (torch.round(x.double() / step) * step).to(x.dtype)


def infinite_too_early(x, fmt):
    too_large = x.abs() > fmt.largest
    end = torch.copysign(torch.full_like(x, math.inf if fmt.infinity else fmt.largest), x)
    return torch.where(too_large, end, on_the_grid(x, fmt))


def infinity_everywhere(x, fmt):
    return on_the_grid(x, fmt, beyond=math.inf)


def left_in_double(x, fmt):
    return on_the_grid(x, fmt).double()


def rest_forgotten(share, factor):
    return factor / share


def bytes_alone(share, factor):
    return factor


def mean_of_speeds(share, factor):
    return 1 - share + share * factor


def time_returned(share, factor):
    return 1 - share + share / factor


def never_slower(share, factor):
    return max(1.0, 1 / (1 - share + share / factor))


def no_end_to_the_factor(share, factor):
    return 1 / (1 - share)


def shares_swapped(share, factor):
    return 1 / (share + (1 - share) / factor)


WRONG = {
    "01.1": [
        (sign_forgotten, "(negative, in bfloat16), it is 12, it should be -12"),
        (no_subnormals, "(the smallest number of float16), it is 3.05474e-05, it should be 5.96046e-08"),
        (subnormals_become_0, "(the smallest number of float16), it is 0, it should be 5.96046e-08"),
        (subnormal_power_of_exponent_0, "(the smallest number of float16), it is 2.98023e-08"),
        (no_bias, "yours is 3.28e+04 times that"),
        (bias_of_a_power_of_two, "it is 0.75, it should be 1.5 (yours is 0.5 times that)"),
        (infinity_at_the_top, "(448 in 8 bits, which have no infinity), it is inf, it should be 448"),
        (no_leading_1, "it is 0.5, it should be 1.5"),
    ],
    "01.2": [
        (cut_off, "(normal numbers and 0, to float16), at [0], it is 1, it should be 1.00098"),
        (ties_up, "(halfway between two numbers, to bfloat16), at [0], it is 1.00781, it should be 1"),
        (no_subnormals_there, "(below the normal numbers, to float16), at [0]"),
        (all_below_normal_is_0, "(below the normal numbers, to float16), at [0], it is 0"),
        (no_end, "(at the end of float16), at [1], it is 65536, it should be inf"),
        (infinite_too_early, "(at the end of float16), at [0], it is inf, it should be 65504"),
        (infinity_everywhere, "(beyond the end of 8 bits, which have no infinity), at [2], it is -inf"),
        (left_in_double, "its dtype is torch.float64, it should be torch.float32"),
    ],
    "01.3": [
        (rest_forgotten, "it is 3.33333, it should be 1.42857"),
        (bytes_alone, "it is 2, it should be 1.42857"),
        (mean_of_speeds, "it is 1.6, it should be 1.42857"),
        (time_returned, "it is 0.7, it should be 1.42857"),
        (never_slower, "in case 5 (share=0.5, factor=0.5), it is 1, it should be 0.666667"),
        (no_end_to_the_factor, "it is 2.5, it should be 1.42857"),
        (shares_swapped, "it is 1.25, it should be 1.42857"),
    ],
}
