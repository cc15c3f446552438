"""Wrong answers to the exercises of notebook 07."""


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


def not_a_distribution(p, q):
    return (p - q).clamp(min=0)


def negative(p, q):
    return p - q


def wrong_way_round(p, q):
    left = (q - p).clamp(min=0)
    return left / left.sum()


def the_target_itself(p, q):
    return p


def without_the_targets_own(acceptance, k):
    return sum(acceptance**i for i in range(1, k + 1))


def independent(acceptance, k):
    return 1 + k * acceptance


def one_too_many(acceptance, k):
    return sum(acceptance**i for i in range(k + 2))


def all_or_nothing(acceptance, k):
    return 1 + k * acceptance**k


WRONG = {
    "07.1": [
        (first_occurrence, "at [0], it is 7, it should be 8 (yours is 0.875 times that)"),
        (finds_itself, "its length is 0, it should be 2"),
        (includes_the_match, "its length is 4, it should be 2"),
        (none_where_nothing_is_found, "its length is 2, it should be 0"),
    ],
    "07.2": [
        (not_a_distribution, "at [0], it is 0.3, it should be 1 (yours is 0.3 times that); 1 of 3 values differ"),
        (negative, "at [0], it is 0.3, it should be 1 (yours is 0.3 times that); 2 of 3 values differ"),
        (wrong_way_round, "at [0], it is 0, it should be 1; 2 of 3 values differ"),
        (the_target_itself, "at [0], it is 0.5, it should be 1 (yours is 0.5 times that); 3 of 3 values differ"),
    ],
    "07.3": [
        (without_the_targets_own, "it is 0.5, it should be 1.5 (yours is 0.333 times that)"),
        (independent, "it is 4.2, it should be 3.3616 (yours is 1.25 times that)"),
        (one_too_many, "it is 1.75, it should be 1.5 (yours is 1.17 times that)"),
        (all_or_nothing, "it is 2.6384, it should be 3.3616 (yours is 0.785 times that)"),
    ],
}
