"""The exercises of notebook 11."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def pieces() -> list[tuple]:
    """What was left over, and what has come."""
    return [
        (b"", b'{"a": 1}\n\n{"b"'),
        (b'{"b"', b": 2}\n"),
        (b"", b"no end"),
        (b"x", b""),
        (b"", b"  \n\r\n a \r\nb\n"),
        ("é".encode()[:1], "é".encode()[1:] + b"\n"),
    ]


def log_probs() -> list[tuple]:
    """Of an answer's tokens."""
    return [([-0.1, -0.3],), ([0.0],), ([-5.0, -0.5, -0.25, 0.0],)]


def answers() -> list[tuple]:
    """Confidences, right or wrong, groups."""
    return [
        ([0.05, 0.95, 1.0, 0.52, 0.58], [False, True, False, True, True], 2),
        ([0.1, 0.9], [True, False], 1),
        ([0.5, 0.25, 0.75], [True, False, True], 4),
        ([], [], 3),
    ]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "11.1",
        "helpers.serving.lines:cut",
        pieces,
        (
            "Put rest and piece together, and split at line ends. Which of the parts isn't whole?",
            "*whole, rest = (rest + piece).split(b'\\n'): the last part has no end yet.",
            "Strip the whole ones, and leave out those of which nothing is left.",
        ),
        case_names=(
            "the example",
            "its second half",
            "no line yet",
            "nothing comes",
            "blank lines",
            "half a character",
        ),
    ),
    Exercise(
        "11.2",
        "helpers.serving.client:confidence",
        log_probs,
        (
            "The mean comes first, exp last.",
            "math.exp(sum(log_probs) / len(log_probs))",
        ),
        case_names=("two tokens", "a sure one", "one unsure token"),
    ),
    Exercise(
        "11.3",
        "helpers.serving.calibration:reliability",
        answers,
        (
            "Sort the pairs of confidence and right by their confidence; then cut the list.",
            "Never more groups than answers: groups = min(bins, n); none if there are no answers.",
            "For each group: the mean of its confidences, the mean of its right answers, and how many.",
        ),
        case_names=("two groups", "one group", "more groups than answers", "no answers"),
    ),
)
