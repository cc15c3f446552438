"""Wrong answers to the exercises of notebook 08."""

from torch.nn import functional as F


def no_residual(x, weight, bias):
    return F.silu(x @ weight.T + bias)


def weight_not_transposed(x, weight, bias):
    return x + F.silu(x @ weight + bias)


def all_inside(x, weight, bias):
    return F.silu(x + x @ weight.T + bias)


def without_bias(x, weight, bias):
    return x + F.silu(x @ weight.T)


def one_after_the_other(parents):
    return [i + 1 for i in range(len(parents))]


def from_zero(parents):
    found = []
    for parent in parents:
        found.append(0 if parent < 0 else found[parent] + 1)
    return found


def all_the_same(parents):
    return [1] * len(parents)


def only_the_best(answer, tree):
    at, found = 0, []
    while at < len(answer) - 1:
        depth = 0
        while depth < len(answer[at]) and answer[at][depth] == 0 and (0,) * (depth + 1) in tree:
            depth += 1
        found.append(min(1 + depth, len(answer) - 1 - at))
        at += 1 + depth
    return found


def every_position(answer, tree):
    found = []
    for ranks in answer[:-1]:
        depth = 0
        while depth < len(ranks) and tuple(ranks[: depth + 1]) in tree:
            depth += 1
        found.append(1 + depth)
    return found


def without_the_model_s_own(answer, tree):
    at, found = 0, []
    while at < len(answer) - 1:
        depth = 0
        while depth < len(answer[at]) and tuple(answer[at][: depth + 1]) in tree:
            depth += 1
        found.append(max(1, depth))
        at += max(1, depth)
    return found


def past_the_end(answer, tree):
    at, found = 0, []
    while at < len(answer) - 1:
        depth = 0
        while depth < len(answer[at]) and tuple(answer[at][: depth + 1]) in tree:
            depth += 1
        found.append(1 + depth)
        at += 1 + depth
    return found


WRONG = {
    "08.1": [
        (no_residual, "at [0, 0], it is 0, it should be 0.271277; 4 of 4 values differ"),
        (weight_not_transposed, "at [0, 0], it is -0.872457, it should be -0.442392"),
        (all_inside, "at [0, 0], it is 0.153924, it should be 0.271277"),
        (without_bias, "at [0, 0], it is -0.278959, it should be 0.101006"),
    ],
    "08.2": [
        (one_after_the_other, "at [1], it is 2, it should be 1"),
        (from_zero, "at [0], it is 0, it should be 1"),
        (all_the_same, "at [1], it is 1, it should be 2"),
    ],
    "08.3": [
        (only_the_best, "at [0], it is 1, it should be 2"),
        (every_position, "its length is 4, it should be 2"),
        (without_the_model_s_own, "at [0], it is 2, it should be 3"),
        (past_the_end, "at [1], it is 2, it should be 1"),
    ],
}
