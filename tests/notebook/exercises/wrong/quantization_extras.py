"""Wrong answers to the exercises of notebooks 02b, 02c and 02d."""

import torch

from helpers.weights.quantization.integer import round_to_nearest


def columns(weight, factor, grids, spread, scale=lambda error, pivot: error / pivot):
    """As in the course, but for how an error is scaled, and what the later columns lose."""
    weight, codes, errors = weight.clone(), [], torch.zeros_like(weight)
    for j, grid in enumerate(grids):
        column = weight[:, j : j + 1]
        codes.append(grid.encode(column))
        error = scale(column - grid.decode(codes[j]), factor[j, j])
        weight[:, j + 1 :] -= spread(error, factor, j)
        errors[:, j : j + 1] = error
    return torch.cat(codes, dim=1), errors


def along_the_row(error, factor, j):
    return error * factor[j, j + 1 :]


def nothing_fed_forward(weight, factor, grids):
    return columns(weight, factor, grids, lambda error, factor, j: 0)


def fed_with_the_wrong_sign(weight, factor, grids):
    return columns(weight, factor, grids, lambda error, factor, j: -along_the_row(error, factor, j))


def pivot_forgotten(weight, factor, grids):
    return columns(weight, factor, grids, along_the_row, lambda error, pivot: error)


def next_column_alone(weight, factor, grids):
    def spread(error, factor, j):
        row = along_the_row(error, factor, j).clone()
        row[:, 1:] = 0
        return row

    return columns(weight, factor, grids, spread)


def first_grid_for_all(weight, factor, grids):
    return columns(weight, factor, [grids[0]] * len(grids), along_the_row)


def numbers_for_codes(weight, factor, grids):
    codes, errors = columns(weight, factor, grids, along_the_row)
    return torch.cat([grid.decode(codes[:, j : j + 1]) for j, grid in enumerate(grids)], 1), errors


def upside_down(activation_absmax, weight_absmax, alpha=0.5):
    return weight_absmax.clamp(min=1e-5) ** (1 - alpha) / activation_absmax.clamp(min=1e-5) ** alpha


def same_power(activation_absmax, weight_absmax, alpha=0.5):
    return activation_absmax.clamp(min=1e-5) ** alpha / weight_absmax.clamp(min=1e-5) ** alpha


def alpha_swapped(activation_absmax, weight_absmax, alpha=0.5):
    return activation_absmax.clamp(min=1e-5) ** (1 - alpha) / weight_absmax.clamp(min=1e-5) ** alpha


def weights_left_out(activation_absmax, weight_absmax, alpha=0.5):
    return activation_absmax.clamp(min=1e-5) ** alpha


def product(activation_absmax, weight_absmax, alpha=0.5):
    return activation_absmax.clamp(min=1e-5) ** alpha * weight_absmax.clamp(min=1e-5) ** (1 - alpha)


def zeros_forgotten(activation_absmax, weight_absmax, alpha=0.5):
    return activation_absmax**alpha / weight_absmax ** (1 - alpha)


def step(weight, x, y, bits, lr, group="channel", used=round_to_nearest, moved=None, shrink=None):
    rounded = used(weight, bits, group)
    error = x @ rounded.T - y
    gradient = 2 * error.T @ x / (error.numel() if shrink is None else shrink(error))
    return (weight if moved is None else moved(weight, bits, group)) - lr * gradient


def gradient_of_the_exact_weight(weight, x, y, bits, lr, group="channel"):
    return step(weight, x, y, bits, lr, group, used=lambda weight, bits, group: weight)


def rounded_weight_moved(weight, x, y, bits, lr, group="channel"):
    return step(weight, x, y, bits, lr, group, moved=round_to_nearest)


def result_rounded(weight, x, y, bits, lr, group="channel"):
    return round_to_nearest(step(weight, x, y, bits, lr, group), bits, group)


def uphill(weight, x, y, bits, lr, group="channel"):
    return step(weight, x, y, bits, -lr, group)


def sum_for_the_mean(weight, x, y, bits, lr, group="channel"):
    return step(weight, x, y, bits, lr, group, shrink=lambda error: 1)


def mean_over_tokens(weight, x, y, bits, lr, group="channel"):
    return step(weight, x, y, bits, lr, group, shrink=len)


def two_forgotten(weight, x, y, bits, lr, group="channel"):
    return step(weight, x, y, bits, lr / 2, group)


def group_ignored(weight, x, y, bits, lr, group="channel"):
    return step(weight, x, y, bits, lr)


def transposed(weight, x, y, bits, lr, group="channel"):
    error = x @ round_to_nearest(weight, bits, group).T - y
    return weight - lr * 2 * (x.T @ error) / error.numel()


WRONG = {
    "02b.1": [
        (nothing_fed_forward, "(3 bits), at [1][0, 2], it is -0.534958"),
        (fed_with_the_wrong_sign, "(3 bits), at [1][0, 2], it is -0.521878"),
        (pivot_forgotten, "(3 bits), at [1][0, 1], it is -0.00521612"),
        (next_column_alone, "(3 bits), at [1][0, 3], it is 1.90015"),
        (first_grid_for_all, "(another grid for the last columns), at [0][0, 2], it is -2, it should be -1"),
        (numbers_for_codes, "at [0], its dtype is torch.float32, it should be torch.int8"),
    ],
    "02c.1": [
        (upside_down, "(alpha 0.5), at [0], it is 0.057735, it should be 17.3205"),
        (same_power, "(alpha 0.8), at [0], it is 95.8732"),
        (alpha_swapped, "(alpha 0.8), at [0], it is 6.44394"),
        (weights_left_out, "(alpha 0.5), at [0], it is 9.48683"),
        (product, "(alpha 0.5), at [0], it is 5.19615"),
        (zeros_forgotten, "(a channel and a column of zeros), at [0], it is inf"),
    ],
    "02d.1": [
        (gradient_of_the_exact_weight, "(2 bits, a channel), at [0, 0], it is -0.486781, it should be -0.45417"),
        (rounded_weight_moved, "(2 bits, a channel), at [0, 0], it is -0.571211"),
        (result_rounded, "(2 bits, a channel), at [0, 0], it is -0.596904"),
        (uphill, "(2 bits, a channel), at [0, 0], it is -0.519391"),
        (sum_for_the_mean, "(2 bits, a channel), at [0, 0], it is -0.160677"),
        (mean_over_tokens, "(2 bits, a channel), at [0, 0], it is -0.42156"),
        (two_forgotten, "(2 bits, a channel), at [0, 0], it is -0.470476"),
        (group_ignored, "(3 bits, groups of 4), at [0, 0], it is 0.964557"),
        (transposed, "it raised RuntimeError: The size of tensor a (3) must match the size of tensor b (2)"),
    ],
}
