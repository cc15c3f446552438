"""Wrong answers to the exercise of notebook 00c."""

import torch


def one_tensor(x, weights):
    return x @ torch.cat(list(weights)).T


def equal_parts(x, weights):
    return list((x @ torch.cat(list(weights)).T).chunk(len(weights), -1))


def rows_cut(x, weights):
    return list((torch.cat(list(weights)) @ x.T).split([len(w) for w in weights], 0))


def not_transposed(x, weights):
    return list((x @ torch.cat(list(weights))).split([len(w) for w in weights], -1))


def stacked(x, weights):
    return list(x @ torch.stack(list(weights)).transpose(1, 2))


def a_tuple(x, weights):
    return (x @ torch.cat(list(weights)).T).split([len(w) for w in weights], -1)


WRONG = {
    "00c.1": [
        (one_tensor, "(two weights alike), it is a tensor, it should be a list"),
        (equal_parts, "(more queries than keys and values), at [0], its shape is (2, 4), it should be (2, 6)"),
        (rows_cut, "(two weights alike), at [0], its shape is (3, 1), it should be (1, 3)"),
        (not_transposed, "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        (stacked, "(more queries than keys and values), it raised RuntimeError: stack expects each tensor"),
        (a_tuple, "it is a tuple, it should be a list"),
    ],
}
