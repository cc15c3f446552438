"""The exercises of notebook 00."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def answers() -> list[tuple]:
    """Recorded answers, a list of steps each."""
    from helpers.decoding.completion import Step
    from helpers.decoding.proposals import NOTHING

    def step(kind: str, seconds: float, *emitted: int) -> Step:
        return Step(kind, seconds, 1, 0, NOTHING, (), emitted, (0.0,) * len(emitted))

    def prefill(seconds: float, *emitted: int) -> Step:
        return step("prefill", seconds, *emitted)

    def decode(seconds: float, *emitted: int) -> Step:
        return step("decode", seconds, *emitted)

    return [
        ([prefill(0.05, 311), decode(0.004, 17), decode(0.006, 902), decode(0.01, 2)],),
        ([prefill(0.03, 44), decode(0.01, 8, 120, 8), decode(0.01, 9), decode(0.02, 31, 7, 655, 2)],),
        ([prefill(0.03), prefill(0.02, 15), decode(0.005, 12), decode(0.005, 360, 2)],),
        ([prefill(0.04, 2)],),
    ]


def weights_and_bandwidths() -> list[tuple]:
    """Bytes of weights, bytes per second."""
    return [(40e6, 20e9), (14e9, 3.35e12), (500_000_000, 8e9)]


def machines() -> list[tuple]:
    """Bytes per weight, bytes per second, operations per second; one with weights of half a byte."""
    return [(4, 20e9, 100e9), (2, 3.35e12, 990e12), (0.5, 1e9, 26e9)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "00.1",
        "helpers.measuring.latency:decode_tokens_per_second",
        answers,
        (
            'Take the steps whose kind is "decode", and forget the others. How many tokens did they write, and in how '
            "many seconds?",
            "A step may write several tokens: len(step.emitted). Divide the sum of tokens by the sum of seconds; an "
            "answer that ended with its first token has no decode steps, and nothing to divide by.",
        ),
        case_names=("a token a step", "several tokens a step", "a prompt read in two steps", "no decode step"),
    ),
    Exercise(
        "00.2",
        "helpers.measuring.cost_model:least_milliseconds",
        weights_and_bandwidths,
        (
            "How many seconds does it take to read so many bytes, at so many bytes per second?",
            "Bytes divided by bytes per second are seconds. A second has 1000 milliseconds.",
        ),
    ),
    Exercise(
        "00.3",
        "helpers.measuring.cost_model:balance_tokens",
        machines,
        (
            "Reading a weight takes the same time for any number of tokens; using it takes 2 / rate for each of them.",
            "Set bytes_per_weight / bandwidth equal to num_tokens * 2 / rate, and solve for num_tokens.",
        ),
    ),
)
