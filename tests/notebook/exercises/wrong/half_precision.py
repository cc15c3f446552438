"""Wrong answers to the exercises of notebook 01."""

import math


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


def upside_down(largest_gradient, largest_number):
    return 2.0 ** math.floor(math.log2(largest_gradient / largest_number))


def not_a_power(largest_gradient, largest_number):
    return largest_number / largest_gradient


def rounded_up(largest_gradient, largest_number):
    return 2.0 ** math.ceil(math.log2(largest_number / largest_gradient))


def exponent_alone(largest_gradient, largest_number):
    return math.floor(math.log2(largest_number / largest_gradient))


def truncated(largest_gradient, largest_number):
    return 2.0 ** int(math.log2(largest_number / largest_gradient))


def strictly_below(largest_gradient, largest_number):
    scale = 2.0 ** math.floor(math.log2(largest_number / largest_gradient))
    return scale if scale * largest_gradient < largest_number else scale / 2


def powers_apart(largest_gradient, largest_number):
    return 2.0 ** (math.floor(math.log2(largest_number)) - math.floor(math.log2(largest_gradient)))


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
        (upside_down, "it is 1.52588e-05, it should be 32768"),
        (not_a_power, "it is 65504, it should be 32768"),
        (rounded_up, "it is 65536, it should be 32768 (yours is 2 times that)"),
        (exponent_alone, "it is 15, it should be 32768"),
        (strictly_below, "(exactly the largest number), it is 32, it should be 64"),
        (powers_apart, "(a gradient that is too large already), it is 1, it should be 0.5 (yours is 2 times that)"),
        (truncated, "(a gradient that is too large already), it is 1, it should be 0.5"),
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
