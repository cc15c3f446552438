"""Wrong answers to the exercises of notebook 01c."""

import math


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


WRONG = {
    "01c.1": [
        (upside_down, "it is 1.52588e-05, it should be 32768"),
        (not_a_power, "it is 65504, it should be 32768"),
        (rounded_up, "it is 65536, it should be 32768 (yours is 2 times that)"),
        (exponent_alone, "it is 15, it should be 32768"),
        (strictly_below, "(exactly the largest number), it is 32, it should be 64"),
        (powers_apart, "(a gradient that is too large already), it is 1, it should be 0.5 (yours is 2 times that)"),
        (truncated, "(a gradient that is too large already), it is 1, it should be 0.5"),
    ],
}
