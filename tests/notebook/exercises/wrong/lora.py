"""Wrong answers to the exercises of notebook 03."""

import torch


def only_a(shapes, rank):
    return sum(rank * into for _, into in shapes)


def whole_matrices(shapes, rank):
    return sum(out * into for out, into in shapes)


def times(shapes, rank):
    return sum(rank * out * into for out, into in shapes)


def first_layer_alone(shapes, rank):
    return rank * sum(shapes[0]) if shapes else 0


def each_shape_once(shapes, rank):
    return sum(rank * (out + into) for out, into in set(shapes))


def all_like_the_first(shapes, rank):
    return rank * len(shapes) * sum(shapes[0]) if shapes else 0


def order_of_a_and_b(weight, a, b, scaling):
    return (
        (weight.float() + scaling * (a.T.float() @ b.T.float()).T).to(weight.dtype)
        if a.shape != b.shape
        else (weight + scaling * a @ b)
    )


def no_scaling(weight, a, b, scaling):
    return (weight.float() + b @ a).to(weight.dtype)


def added_in_the_weights_dtype(weight, a, b, scaling):
    return weight + (scaling * b @ a / 8).to(weight.dtype) * 8 if weight.dtype == torch.float32 else weight


def change_rounded_first(weight, a, b, scaling):
    return weight + (scaling * b @ a).to(weight.dtype)


def product_in_the_weights_dtype(weight, a, b, scaling):
    return (weight.float() + scaling * (b.to(weight.dtype) @ a.to(weight.dtype)).float() * 1.0).to(weight.dtype)


def scaled_by_the_rank(weight, a, b, scaling):
    return (weight.float() + scaling / len(a) * b @ a).to(weight.dtype)


def left_in_float32(weight, a, b, scaling):
    return weight.float() + scaling * b.float() @ a.float()


def only_the_change(weight, a, b, scaling):
    return (scaling * b.float() @ a.float()).to(weight.dtype)


def prompt_is_learned(prompt, completion, eos):
    return prompt + completion + [eos], prompt + completion + [eos]


def eos_is_hidden(prompt, completion, eos):
    ids = prompt + completion + [eos]
    return ids, [-100] * len(prompt) + [-100 if t == eos else t for t in [*completion, eos]]


def eos_is_missing(prompt, completion, eos):
    return prompt + completion, [-100] * len(prompt) + completion


def prompt_tokens_are_hidden_everywhere(prompt, completion, eos):
    ids = prompt + completion + [eos]
    return ids, [-100 if token in prompt else token for token in ids]


def eos_is_not_learned(prompt, completion, eos):
    return prompt + completion + [eos], [-100] * len(prompt) + completion + [-100]


def labels_are_shifted(prompt, completion, eos):
    return prompt + completion + [eos], [-100] * (len(prompt) - 1) + completion + [eos, -100]


WRONG = {
    "03.1": [
        (only_a, "it is 1024, it should be 2048 (yours is 0.5 times that)"),
        (whole_matrices, "it is 262144, it should be 2048 (yours is 128 times that)"),
        (times, "it is 524288, it should be 2048 (yours is 256 times that)"),
        (each_shape_once, "(layers of the same shape), it is 3584, it should be 5632"),
        (all_like_the_first, "(two layers), it is 16384, it should be 14336"),
        (first_layer_alone, "it is 8192, it should be 14336 (yours is 0.571 times that)"),
    ],
    "03.2": [
        (
            order_of_a_and_b,
            "at [0, 0], it is 0.3232, it should be -0.96239 (yours is -0.336 times that); 16 of 16 values differ",
        ),
        (
            no_scaling,
            "at [0, 0], it is 1.59367, it should be 2.38407 (yours is 0.668 times that); 15 of 15 values differ",
        ),
        (
            added_in_the_weights_dtype,
            "at [0, 0], it is 256, it should be 258 (yours is 0.992 times that); 4 of 4 values differ",
        ),
        (
            change_rounded_first,
            "must not be rounded before it is added), at [0, 0], it is 1, it should be 1.00781",
        ),
        (
            product_in_the_weights_dtype,
            "(bfloat16, and a change that must not be rounded before it is added), at [0, 0]",
        ),
        (scaled_by_the_rank, "(3 by 5), at [0, 0], it is 1.59367, it should be 2.38407"),
        (left_in_float32, "its dtype is torch.float32, it should be torch.bfloat16"),
        (
            only_the_change,
            "at [0, 0], it is 1.58079, it should be 2.38407 (yours is 0.663 times that); 15 of 15 values differ",
        ),
    ],
    "03.3": [
        (prompt_is_learned, "at [1][0], it is 7, it should be -100 (yours is -0.07 times that)"),
        (eos_is_hidden, "at [1][5], it is -100, it should be 2 (yours is -50 times that)"),
        (eos_is_missing, "at [0], its length is 5, it should be 6"),
        (prompt_tokens_are_hidden_everywhere, "(the end token also stands inside), at [1][2], it is -100"),
        (eos_is_not_learned, "(a short example), at [1][5]"),
        (labels_are_shifted, "at [1][2], it is 20, it should be -100 (yours is -0.2 times that)"),
    ],
}
