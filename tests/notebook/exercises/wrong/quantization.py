"""Wrong answers to the exercises of notebook 02."""

import torch

from helpers.weights.quantization.awq import awq_scale
from helpers.weights.quantization.integer import round_to_nearest
from helpers.weights.quantization.nf4_codes import LEVELS


def rows_absmax(weight):
    return weight.float().abs().amax(dim=-1, keepdim=True)


def codes_and_scales(weight, absmax, levels, scales=None, to_integers=torch.round):
    absmax = torch.where(absmax > 0, absmax, levels)
    codes = to_integers(weight.float() * (levels / absmax)).to(torch.int8)
    return codes, absmax / levels if scales is None else scales(absmax, levels)


def sign_forgotten(weight, bits=8):
    return codes_and_scales(weight, weight.float().amax(dim=-1, keepdim=True), 2 ** (bits - 1) - 1)


def columns(weight, bits=8):
    return codes_and_scales(weight, weight.float().abs().amax(dim=0, keepdim=True), 2 ** (bits - 1) - 1)


def one_scale(weight, bits=8):
    return codes_and_scales(weight, weight.float().abs().max().expand(len(weight), 1), 2 ** (bits - 1) - 1)


def asymmetric_end(weight, bits=8):
    return codes_and_scales(weight, rows_absmax(weight), 2 ** (bits - 1))


def cut_off(weight, bits=8):
    return codes_and_scales(weight, rows_absmax(weight), 2 ** (bits - 1) - 1, to_integers=torch.trunc)


def upside_down(weight, bits=8):
    return codes_and_scales(weight, rows_absmax(weight), 2 ** (bits - 1) - 1, lambda absmax, levels: levels / absmax)


def zeros_forgotten(weight, bits=8):
    absmax, levels = rows_absmax(weight), 2 ** (bits - 1) - 1
    codes = torch.round(weight.float() * (levels / absmax)).nan_to_num(0).to(torch.int8)
    return codes, absmax / levels


def bits_ignored(weight, bits=8):
    return codes_and_scales(weight, rows_absmax(weight), 127)


def codes_left_as_floats(weight, bits=8):
    codes, scales = codes_and_scales(weight, rows_absmax(weight), 2 ** (bits - 1) - 1)
    return codes.float(), scales


def axis_dropped(weight, bits=8):
    codes, scales = codes_and_scales(weight, rows_absmax(weight), 2 ** (bits - 1) - 1)
    return codes, scales[:, 0]


def scales_in_the_weights_dtype(weight, bits=8):
    codes, scales = codes_and_scales(weight, rows_absmax(weight), 2 ** (bits - 1) - 1)
    return codes, scales.to(weight.dtype)


def nearest(shares, levels=LEVELS):
    return (shares[..., None] - levels).abs().argmin(-1)


def blockwise(x, block, absmax_of=None, codes_of=nearest):
    parts = x.float().reshape(-1, block)
    absmax = parts.abs().amax(dim=1) if absmax_of is None else absmax_of(parts)
    return codes_of(parts / absmax.clamp(min=1e-38)[:, None]).to(torch.uint8).reshape(x.shape), absmax


def largest_with_its_sign(x, block=64):
    return blockwise(x, block, lambda parts: parts.amax(dim=1))


def one_scale_for_all(x, block=64):
    return blockwise(x, block, lambda parts: parts.abs().max().expand(len(parts)))


def even_levels(x, block=64):
    return blockwise(x, block, codes_of=lambda shares: nearest(shares, torch.linspace(-1, 1, 16)))


def next_level_above(x, block=64):
    return blockwise(x, block, codes_of=lambda shares: torch.bucketize(shares, LEVELS))


def block_of_zeros_forgotten(x, block=64):
    parts = x.float().reshape(-1, block)
    absmax = parts.abs().amax(dim=1)
    return nearest((parts / absmax[:, None]).nan_to_num(-1)).to(torch.uint8).reshape(x.shape), absmax


def blocks_kept(x, block=64):
    codes, absmax = blockwise(x, block)
    return codes.reshape(-1, block), absmax


def long_codes(x, block=64):
    codes, absmax = blockwise(x, block)
    return codes.long(), absmax


def scales_with_an_axis(x, block=64):
    codes, absmax = blockwise(x, block)
    return codes, absmax[:, None]


def levels_returned(x, block=64):
    codes, absmax = blockwise(x, block)
    return LEVELS[codes.int()], absmax


def scales_kept_in_bfloat16(x, block=64):
    codes, absmax = blockwise(x, block)
    return codes, absmax.to(x.dtype)


def searched(weight, mean_abs, hessian, rounded, steps, scale=awq_scale, error=None, alphas=None, pick=min):
    """As in the course, but for what is given."""
    errors = {}
    for step in range(steps + 1) if alphas is None else alphas:
        off = rounded(weight, scale(mean_abs, step / steps)) - weight
        errors[step / steps] = (((off @ hessian) * off) if error is None else error(off)).sum().item()
    best = pick(errors, key=errors.get)
    return best, scale(mean_abs, best), errors


def rounding(bits, group, symmetric):
    return lambda weight, s: round_to_nearest(weight * s, bits, group, symmetric) / s


def scale_left_in(weight, mean_abs, hessian, bits, group="channel", symmetric=True, steps=20):
    left_in = lambda weight, s: round_to_nearest(weight * s, bits, group, symmetric)  # noqa: E731
    return searched(weight, mean_abs, hessian, left_in, steps)


def divided_first(weight, mean_abs, hessian, bits, group="channel", symmetric=True, steps=20):
    divided = lambda weight, s: round_to_nearest(weight / s, bits, group, symmetric) * s  # noqa: E731
    return searched(weight, mean_abs, hessian, divided, steps)


def rows_scaled(weight, mean_abs, hessian, bits, group="channel", symmetric=True, steps=20):
    rows = rounding(bits, group, symmetric)
    return searched(weight, mean_abs, hessian, lambda weight, s: rows(weight, s[:, None]), steps)


def inputs_alone(weight, mean_abs, hessian, bits, group="channel", symmetric=True, steps=20):
    size = hessian.diagonal()
    return searched(
        weight, mean_abs, hessian, rounding(bits, group, symmetric), steps, error=lambda off: off.square() * size
    )


def last_alpha_forgotten(weight, mean_abs, hessian, bits, group="channel", symmetric=True, steps=20):
    return searched(weight, mean_abs, hessian, rounding(bits, group, symmetric), steps, alphas=range(steps))


def plain_rounding_forgotten(weight, mean_abs, hessian, bits, group="channel", symmetric=True, steps=20):
    return searched(weight, mean_abs, hessian, rounding(bits, group, symmetric), steps, alphas=range(1, steps + 1))


def power_not_brought_to_the_middle(weight, mean_abs, hessian, bits, group="channel", symmetric=True, steps=20):
    power = lambda mean_abs, alpha: mean_abs**alpha  # noqa: E731
    return searched(weight, mean_abs, hessian, rounding(bits, group, symmetric), steps, scale=power)


def zero_point_ignored(weight, mean_abs, hessian, bits, group="channel", symmetric=True, steps=20):
    return searched(weight, mean_abs, hessian, rounding(bits, group, True), steps)


def group_ignored(weight, mean_abs, hessian, bits, group="channel", symmetric=True, steps=20):
    return searched(weight, mean_abs, hessian, rounding(bits, "channel", symmetric), steps)


WRONG = {
    "02.1": [
        (sign_forgotten, "(8 bits), at [0][0, 0], it is 71, it should be 32"),
        (columns, "(8 bits), at [0][0, 0], it is 127, it should be 32"),
        (one_scale, "(8 bits), at [0][1, 0], it is 1, it should be 42"),
        (asymmetric_end, "(8 bits), at [0][0, 1], it is -128, it should be -127"),
        (cut_off, "(8 bits), at [0][0, 0], it is 31, it should be 32"),
        (upside_down, "(8 bits), at [1][0, 0], it is 63.5"),
        (zeros_forgotten, "(a row of zeros), at [1][0, 0], it is 0, it should be 1"),
        (bits_ignored, "(4 bits), at [0][0, 0], it is 32, it should be 2"),
        (codes_left_as_floats, "at [0], its dtype is torch.float32, it should be torch.int8"),
        (axis_dropped, "at [1], its shape is (2,), it should be (2, 1)"),
        (scales_in_the_weights_dtype, "(weights in bfloat16), at [1], its dtype is torch.bfloat16"),
    ],
    "02.2": [
        (largest_with_its_sign, "(two blocks), at [0][5], it is 12, it should be 9"),
        (one_scale_for_all, "(two blocks), at [0][0], it is 8, it should be 11"),
        (even_levels, "(two blocks), at [0][0], it is 10, it should be 11"),
        (next_level_above, "(two blocks), at [0][2], it is 8, it should be 7"),
        (block_of_zeros_forgotten, "(a block of zeros), at [0][0, 0], it is 0, it should be 7"),
        (blocks_kept, "at [0], its shape is (2, 4), it should be (8,)"),
        (long_codes, "at [0], its dtype is torch.int64, it should be torch.uint8"),
        (scales_with_an_axis, "at [1], its shape is (2, 1), it should be (2,)"),
        (levels_returned, "at [0], its dtype is torch.float32, it should be torch.uint8"),
        (scales_kept_in_bfloat16, "(weights in bfloat16), at [1], its dtype is torch.bfloat16"),
    ],
    "02.3": [
        (scale_left_in, "(3 bits, a channel), at [0], it is 0.1, it should be 0.35"),
        (divided_first, "(3 bits, a channel), at [0], it is 0, it should be 0.35"),
        (rows_scaled, "it raised RuntimeError: The size of tensor a (6) must match the size of tensor b (16)"),
        (inputs_alone, "(3 bits, a channel), at [2][0.0], it is 52600.2"),
        (last_alpha_forgotten, "at [2], it lacks the key 1.0"),
        (plain_rounding_forgotten, "at [2], it lacks the key 0.0"),
        (power_not_brought_to_the_middle, "(3 bits, a channel), at [1][0], it is 0.915294"),
        (zero_point_ignored, "(a zero point, 8 steps), at [0], it is 0.5, it should be 0.625"),
        (group_ignored, "(4 bits, groups of 8), at [0], it is 0.35, it should be 0.45"),
    ],
}
