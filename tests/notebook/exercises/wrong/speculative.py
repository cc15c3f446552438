"""Wrong answers to the exercises of notebook 07."""

import torch


def first_occurrence(tokens, n, count):
    for start in range(len(tokens) - n):
        if tokens[start : start + n] == tokens[-n:]:
            return tokens[start + n : start + n + count]
    return []


def finds_itself(tokens, n, count):
    for start in range(len(tokens) - n, -1, -1):
        if tokens[start : start + n] == tokens[-n:]:
            return tokens[start + n : start + n + count]
    return []


def includes_the_match(tokens, n, count):
    for start in range(len(tokens) - n - 1, -1, -1):
        if tokens[start : start + n] == tokens[-n:]:
            return tokens[start : start + n + count]
    return []


def none_where_nothing_is_found(tokens, n, count):
    for start in range(len(tokens) - n - 1, -1, -1):
        if tokens[start : start + n] == tokens[-n:]:
            return tokens[start + n : start + n + count]
    return [0] * count


def no_overlap(tokens, n, count):
    for start in range(len(tokens) - 2 * n, -1, -1):
        if tokens[start : start + n] == tokens[-n:]:
            return tokens[start + n : start + n + count]
    return []


def in_any_order(tokens, n, count):
    for start in range(len(tokens) - n - 1, -1, -1):
        if sorted(tokens[start : start + n]) == sorted(tokens[-n:]):
            return tokens[start + n : start + n + count]
    return []


def last_token_alone(tokens, n, count):
    for start in range(len(tokens) - 2, -1, -1):
        if tokens[start] == tokens[-1]:
            return tokens[start + 1 : start + 1 + count]
    return []


def never_the_first_place(tokens, n, count):
    for start in range(len(tokens) - n - 1, 0, -1):
        if tokens[start : start + n] == tokens[-n:]:
            return tokens[start + n : start + n + count]
    return []


def not_a_distribution(p, q):
    return (p - q).clamp(min=0)


def negative(p, q):
    return p - q


def wrong_way_round(p, q):
    left = (q - p).clamp(min=0)
    return left / left.sum()


def the_target_itself(p, q):
    return p


def target_masked(p, q):
    left = p * (p > q)
    return left / left.sum()


def uniform(p, q):
    left = (p > q).to(p.dtype)
    return left / left.sum()


def all_to_the_largest(p, q):
    return torch.nn.functional.one_hot((p - q).argmax(), len(p)).to(p.dtype)


def relative_to_the_draft(p, q):
    left = (p / q - 1).clamp(min=0)
    return left / left.sum()


def largest_is_one(p, q):
    left = (p - q).clamp(min=0)
    return left / left.max()


def without_the_targets_own(acceptance, k):
    return sum(acceptance**i for i in range(1, k + 1))


def independent(acceptance, k):
    return 1 + k * acceptance


def one_too_many(acceptance, k):
    return sum(acceptance**i for i in range(k + 2))


def geometric_series(acceptance, k):
    return (1 - acceptance ** (k + 1)) / (1 - acceptance)


def last_guess_forgotten(acceptance, k):
    return 1 + sum(acceptance**i for i in range(1, k))


def all_or_nothing(acceptance, k):
    return 1 + k * acceptance**k


WRONG = {
    "07.1": [
        (first_occurrence, "at [0], it is 7, it should be 8 (yours is 0.875 times that)"),
        (finds_itself, "its length is 0, it should be 2"),
        (includes_the_match, "its length is 4, it should be 2"),
        (no_overlap, "(overlaps the last tokens), its length is 0, it should be 1"),
        (in_any_order, "(all of the last tokens, in their order), at [0], it is 6, it should be 5"),
        (last_token_alone, "(all of the last tokens, in their order), at [0], it is 1, it should be 5"),
        (never_the_first_place, "(stood before, once), its length is 0"),
        (none_where_nothing_is_found, "its length is 2, it should be 0"),
    ],
    "07.2": [
        (not_a_distribution, "at [0], it is 0.3, it should be 1 (yours is 0.3 times that); 1 of 3 values differ"),
        (negative, "at [0], it is 0.3, it should be 1 (yours is 0.3 times that); 2 of 3 values differ"),
        (wrong_way_round, "at [0], it is 0, it should be 1; 2 of 3 values differ"),
        (target_masked, "(more and less of two tokens are left), at [0], it is 0.625, it should be 0.8"),
        (uniform, "(more and less of two tokens are left), at [0], it is 0.5, it should be 0.8"),
        (all_to_the_largest, "(more and less of two tokens are left), at [0], it is 1, it should be 0.8"),
        (relative_to_the_draft, "(more and less of two tokens are left), at [0], it is 0.888889"),
        (largest_is_one, "it is 1, it should be 0.8 (yours is 1.25 times that); 2 of 4 values differ"),
        (the_target_itself, "at [0], it is 0.5, it should be 1 (yours is 0.5 times that); 3 of 3 values differ"),
    ],
    "07.3": [
        (without_the_targets_own, "it is 0.5, it should be 1.5 (yours is 0.333 times that)"),
        (independent, "it is 4.2, it should be 3.3616 (yours is 1.25 times that)"),
        (one_too_many, "it is 1.75, it should be 1.5 (yours is 1.17 times that)"),
        (geometric_series, "(a perfect draft), it raised ZeroDivisionError"),
        (last_guess_forgotten, "(one guess), it is 1, it should be 1.5"),
        (all_or_nothing, "it is 2.6384, it should be 3.3616 (yours is 0.785 times that)"),
    ],
}
