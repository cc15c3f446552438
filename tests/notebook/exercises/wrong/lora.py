"""Wrong answers to the exercises of notebook 03."""

import torch


def forward_of(layer, x, change):
    """y, and `change(name, x)` beside it, right in all that is not about the change itself."""
    y = layer.linear(x)
    if layer.active is None:
        return y
    names = [layer.active] * len(x) if isinstance(layer.active, str) else layer.active
    rows = [change(n, x[i]).to(y.dtype) if n in layer.a else torch.zeros_like(y[i]) for i, n in enumerate(names)]
    return y + torch.stack(rows)


def unscaled(layer, x):
    return forward_of(layer, x, lambda n, one: one.float() @ layer.a[n].T @ layer.b[n].T)


def the_change_alone(layer, x):
    return forward_of(layer, x, layer.change) - layer.linear(x)


def scaled_as_the_first_adapter(layer, x):
    return forward_of(layer, x, lambda n, one: 2 * (one.float() @ layer.a[n].T @ layer.b[n].T))


def some_adapter_always(layer, x):
    return layer.linear(x) + layer.change(layer.active or "sql", x)


def every_name_is_known(layer, x):
    return (
        forward_of(layer, x, layer.change) if layer.active is None else layer.linear(x) + layer.change(layer.active, x)
    )


def left_in_the_adapters_dtype(layer, x):
    y = layer.linear(x)
    return y + layer.change(layer.active, x) if layer.active in layer.a else y


def the_first_for_all(layer, x):
    y, first = layer.linear(x), layer.active if isinstance(layer.active, str) else (layer.active or [None])[0]
    return y + layer.change(first, x).to(y.dtype) if first in layer.a else y


def detached(layer, x):
    with torch.no_grad():
        return forward_of(layer, x, layer.change)


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
        (unscaled, "(one adapter for the whole batch), at [0"),
        (the_change_alone, "(one adapter for the whole batch), at [0, 0, 0], it is"),
        (scaled_as_the_first_adapter, "(another adapter, with another scaling), at [0"),
        (some_adapter_always, "(no adapter), "),
        (every_name_is_known, "(an adapter that this layer does not have), it raised AttributeError"),
        (left_in_the_adapters_dtype, "(W in bfloat16), its dtype is torch.float32, it should be torch.bfloat16"),
        (the_first_for_all, "(an adapter for each sequence, the second without one), at [1, 0, 0]"),
        (detached, "(one adapter for the whole batch), no gradient flows through it, so nothing could learn"),
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
