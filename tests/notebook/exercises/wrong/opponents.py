"""Wrong answers to the exercise of notebook 08b."""


def backwards(weight, heads):  # from neighbours to halves
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def heads_forgotten(weight, heads):
    return weight.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)


def heads_mixed(weight, heads):
    return weight.unflatten(0, (heads, 2, -1)).permute(2, 0, 1, 3).flatten(0, 2)


def second_half_first(weight, heads):
    return weight.unflatten(0, (heads, 2, -1)).flip(1).transpose(1, 2).flatten(0, 2)


def not_flattened(weight, heads):
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2)


WRONG = {
    "08b.1": [
        (backwards, "(one head of 6 rows), at [1, 0]"),
        (heads_forgotten, "(two heads), at [1, 0]"),
        (heads_mixed, "(two heads), at [2, 0]"),
        (second_half_first, "(one head of 6 rows), at [0, 0]"),
        (not_flattened, "its shape is (1, 3, 2, 1), it should be (6, 1)"),
    ],
}
