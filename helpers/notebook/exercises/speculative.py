"""The exercises of notebook 07."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def tokens_to_look_up() -> list[tuple]:
    """Token ids so far, how many of the last must match, how many may follow."""
    return [
        ([1, 2, 3, 4, 1, 2], 2, 2),
        ([5, 6, 7, 5, 6, 8, 5, 6], 2, 3),
        ([1, 2, 3, 4], 1, 2),
        ([9, 9, 9], 1, 4),
        ([5, 9, 9, 9], 2, 4),
        ([1, 2, 5, 2, 1, 6, 1, 2], 2, 2),
        ([4, 1, 2, 7, 1, 2], 2, 5),
    ]


def two_distributions() -> list[tuple]:
    """The target's distribution p, the draft's q."""
    import torch

    pairs = (
        ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5]),
        ([0.7, 0.1, 0.1, 0.1], [0.1, 0.5, 0.2, 0.2]),
        ([0.5, 0.3, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]),
        ([0.6, 0.4], [0.5, 0.5]),
    )
    return [tuple(torch.tensor(each, dtype=torch.float64) for each in pair) for pair in pairs]


def acceptances_and_lengths() -> list[tuple]:
    """The chance that a guess is accepted, guesses in a chain."""
    return [(0.5, 1), (0.8, 4), (0.0, 5), (1.0, 3), (0.9, 0)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "07.1",
        "helpers.speculation.ngram:continuation",
        tokens_to_look_up,
        (
            "Compare tokens[start : start + n] with the last n tokens, for start from the right to the left.",
            "The last n tokens themselves don't count: begin with start = len(tokens) - n - 1.",
            "What followed is tokens[start + n : start + n + count], which may be shorter than count.",
        ),
        case_names=(
            "stood before, once",
            "twice before: the later one counts",
            "never before",
            "right before",
            "overlaps the last tokens",
            "all of the last tokens, in their order",
            "fewer tokens than asked for",
        ),
    ),
    Exercise(
        "07.2",
        "helpers.decoding.acceptance:residual",
        two_distributions,
        (
            "Where q is above p there is nothing left: (p - q).clamp(min=0).",
            "A distribution sums to 1: divide by the sum.",
        ),
        case_names=("three tokens", "only one token is left", "more and less of two tokens are left", "nearly equal"),
    ),
    Exercise(
        "07.3",
        "helpers.speculation.cost:expected_tokens",
        acceptances_and_lengths,
        (
            "The first guess is accepted with probability a, the second with a * a: only after the first.",
            "One token comes from the target in any case: 1 + a + a**2 + ... + a**k.",
        ),
        case_names=("one guess", "four good guesses", "a dead draft", "a perfect draft", "no guesses"),
    ),
)
