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
    depths = []
    for parent in parents:
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return depths


def deeper_with_each_new_parent(parents):
    depths, last = [], None
    for parent in parents:
        depths.append((depths[-1] if depths else 0) + (parent != last))
        last = parent
    return depths


def parents_counted(parents):
    return [len(set(parents[: i + 1])) for i in range(len(parents))]


def parent_before_it_assumed(parents):
    return [parent + 2 for parent in parents]


def all_the_same(parents):
    return [1] * len(parents)


def relu_for_silu(x, weight, bias):
    return x + F.relu(x @ weight.T + bias)


def bias_outside(x, weight, bias):
    return x + F.silu(x @ weight.T) + bias


def only_the_best(answer, tree):
    at, emitted = 0, []
    while at < len(answer) - 1:
        depth = 0
        while depth < len(answer[at]) and answer[at][depth] == 0 and (0,) * (depth + 1) in tree:
            depth += 1
        emitted.append(min(1 + depth, len(answer) - 1 - at))
        at += 1 + depth
    return emitted


def any_path_of_that_rank(answer, tree):
    at, emitted = 0, []
    while at < len(answer) - 1:
        depth = 0
        while depth < len(answer[at]) and answer[at][depth] in {p[depth] for p in tree if len(p) > depth}:
            depth += 1
        emitted.append(min(1 + depth, len(answer) - 1 - at))
        at += 1 + depth
    return emitted


def step_at_the_end(answer, tree):
    at, emitted = 0, []
    while at < len(answer):
        depth = 0
        while depth < len(answer[at]) and tuple(answer[at][: depth + 1]) in tree:
            depth += 1
        emitted.append(min(1 + depth, max(1, len(answer) - 1 - at)))
        at += 1 + depth
    return emitted


def every_position(answer, tree):
    emitted = []
    for ranks in answer[:-1]:
        depth = 0
        while depth < len(ranks) and tuple(ranks[: depth + 1]) in tree:
            depth += 1
        emitted.append(1 + depth)
    return emitted


def without_the_model_s_own(answer, tree):
    at, emitted = 0, []
    while at < len(answer) - 1:
        depth = 0
        while depth < len(answer[at]) and tuple(answer[at][: depth + 1]) in tree:
            depth += 1
        emitted.append(max(1, depth))
        at += max(1, depth)
    return emitted


def past_the_end(answer, tree):
    at, emitted = 0, []
    while at < len(answer) - 1:
        depth = 0
        while depth < len(answer[at]) and tuple(answer[at][: depth + 1]) in tree:
            depth += 1
        emitted.append(1 + depth)
        at += 1 + depth
    return emitted


WRONG = {
    "08.1": [
        (no_residual, "at [0, 0], it is 0, it should be 0.271277; 4 of 4 values differ"),
        (weight_not_transposed, "at [0, 0], it is -0.872457, it should be -0.442392"),
        (all_inside, "at [0, 0], it is 0.153924, it should be 0.271277"),
        (relu_for_silu, "(no bias), at [0, 0], it is"),
        (bias_outside, "(three states), at [0, 0], it is"),
        (without_bias, "at [0, 0], it is -0.278959, it should be 0.101006"),
    ],
    "08.2": [
        (one_after_the_other, "at [1], it is 2, it should be 1"),
        (from_zero, "at [0], it is 0, it should be 1"),
        (deeper_with_each_new_parent, "(two branches side by side), at [3], it is 3, it should be 2"),
        (parents_counted, "(two branches side by side), at [3], it is 3"),
        (parent_before_it_assumed, "(a tree), at [4], it is 4, it should be 3"),
        (all_the_same, "at [1], it is 1, it should be 2"),
    ],
    "08.3": [
        (only_the_best, "at [0], it is 1, it should be 2"),
        (any_path_of_that_rank, "(the second best), its length is 1, it should be 2"),
        (step_at_the_end, "its length is 3, it should be 2"),
        (every_position, "its length is 4, it should be 2"),
        (without_the_model_s_own, "at [0], it is 2, it should be 3"),
        (past_the_end, "at [1], it is 2, it should be 1"),
    ],
}
