"""Wrong answers to the exercises of notebook 04."""

from helpers.weights.pruning.sparsity import keep_best
from helpers.weights.pruning.structured import taylor


def scores_of(weight, squares):
    return weight.float().abs() * squares.sqrt()


def squares_for_norms(weight, squares, sparsity):
    return keep_best(weight.float().abs() * squares, sparsity)


def signs_count(weight, squares, sparsity):
    return keep_best(weight.float() * squares.sqrt(), sparsity)


def over_the_whole_matrix(weight, squares, sparsity):
    return keep_best(scores_of(weight, squares).flatten(), sparsity).view_as(weight)


def true_where_it_goes(weight, squares, sparsity):
    return ~keep_best(scores_of(weight, squares), sparsity)


def by_size_alone(weight, squares, sparsity):
    return keep_best(weight.float().abs(), sparsity)


def rounded_down(weight, squares, sparsity):
    scores, removed = scores_of(weight, squares), int(sparsity * weight.shape[1])
    return keep_best(scores, removed / weight.shape[1])


def a_mask_of_numbers(weight, squares, sparsity):
    return keep_best(scores_of(weight, squares), sparsity).float()


def the_better_half_of_the_row(scores):
    return keep_best(scores, 0.5)


def fours_down_the_columns(scores):
    if scores.shape[0] % 4:
        return keep_best(scores.unflatten(-1, (-1, 4)), 0.5).flatten(-2)
    return keep_best(scores.T.unflatten(-1, (-1, 4)), 0.5).flatten(-2).T


def one_of_two(scores):
    return keep_best(scores.unflatten(-1, (-1, 2)), 0.5).flatten(-2)


def the_two_worst(scores):
    return ~keep_best(scores.unflatten(-1, (-1, 4)), 0.5).flatten(-2)


def parts_of(weights, gradients):
    q, k, v, o = map(taylor, weights, gradients)
    return q.sum(1), k.sum(1), v.sum(1), o.sum(0)


def in_groups(parts, kv_heads):
    return sum(part.reshape(kv_heads, -1).sum(1) for part in parts)


def rows_of_o(weights, gradients, head_dim):
    q, k, v, o = map(taylor, weights, gradients)
    kv_heads = len(k) // head_dim
    rows = o.sum(1) if o.shape[0] == o.shape[1] else o.sum(0)
    return in_groups((q.sum(1), k.sum(1), v.sum(1), rows), kv_heads)


def heads_are_interleaved(weights, gradients, head_dim):
    q, k, v, o = parts_of(weights, gradients)
    kv_heads = len(k) // head_dim
    wide = (q + o).view(-1, kv_heads, head_dim).sum((0, 2))
    return wide + k.view(kv_heads, -1).sum(1) + v.view(kv_heads, -1).sum(1)


def without_o(weights, gradients, head_dim):
    parts = parts_of(weights, gradients)[:3]
    return in_groups(parts, len(weights[1]) // head_dim)


def signs_cancel(weights, gradients, head_dim):
    q, k, v, o = (w.float() * g.float() for w, g in zip(weights, gradients))
    return in_groups((q.sum(1), k.sum(1), v.sum(1), o.sum(0)), len(k) // head_dim).abs()


def the_gradient_alone(weights, gradients, head_dim):
    q, k, v, o = (g.float().abs() for g in gradients)
    return in_groups((q.sum(1), k.sum(1), v.sum(1), o.sum(0)), len(k) // head_dim)


def one_number_a_head(weights, gradients, head_dim):
    q, k, v, o = parts_of(weights, gradients)
    shared = (k + v).view(-1, head_dim).sum(1)
    return (q + o).view(-1, head_dim).sum(1) + shared.repeat_interleave(len(q) // len(k))


def in_the_weights_dtype(weights, gradients, head_dim):
    q, k, v, o = ((w * g).abs() for w, g in zip(weights, gradients))
    return in_groups((q.sum(1), k.sum(1), v.sum(1), o.sum(0)), len(k) // head_dim)


def a_mean_of_each_part(weights, gradients, head_dim):
    kv_heads = len(weights[1]) // head_dim
    return sum(part.view(kv_heads, -1).mean(1) for part in parts_of(weights, gradients))


WRONG = {
    "04.1": [
        (squares_for_norms, "at [0, 0], it is False, it should be True; 4 of 12 values differ"),
        (signs_count, "(the table above), at [1, 0], it is True, it should be False"),
        (over_the_whole_matrix, "(the table above), at [1, 1], it is True, it should be False"),
        (true_where_it_goes, "at [0, 0], it is False, it should be True; 12 of 12 values differ"),
        (by_size_alone, "at [1, 0], it is True, it should be False; 2 of 12 values differ"),
        (rounded_down, "(a share that is no whole number of weights), at [0, 2], it is True"),
        (a_mask_of_numbers, "its dtype is torch.float32, it should be torch.bool"),
    ],
    "04.2": [
        (the_better_half_of_the_row, "(all the best stand in one four), at [0, 2], it is True"),
        (fours_down_the_columns, "(as many rows as columns), at [0, 1], it is False"),
        (one_of_two, "(all the best stand in one four), at [0, 1], it is False"),
        (the_two_worst, "(one four), at [0, 0], it is True"),
    ],
    "04.3": [
        (rows_of_o, "(o is square), at [0]"),
        (heads_are_interleaved, "(two heads share a KV head), at [0]"),
        (without_o, "(each head has its own KV head), at [0]"),
        (signs_cancel, "(each head has its own KV head), at [0], "),
        (the_gradient_alone, "(each head has its own KV head), at [0], it"),
        (one_number_a_head, "(two heads share a KV head), its shape is (6,), it should be (3,)"),
        (in_the_weights_dtype, "its dtype is torch.bfloat16, it should be torch.float32"),
        (a_mean_of_each_part, "(each head has its own KV head), at [0], it is"),
    ],
}
