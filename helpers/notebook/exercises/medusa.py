"""The exercises of notebook 08."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def trees_by_parents() -> list[tuple]:
    """Parents of a tree's guesses, -1 for the certain token."""
    trees = [-1, 0, 1], [-1, -1, -1], [-1, -1, 0, 0, 2], [-1, -1, 0, 1], [-1, 0, -1, 2], []
    return [(parents,) for parents in trees]


class OwnTokens:
    """The model's own token after the certain one (row 0) and after guess i (row i + 1)."""

    def __init__(self, tokens: list[int]):
        self.tokens = tokens

    def __call__(self, row: int) -> int:
        if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < len(self.tokens):
            raise ValueError(f"own_token({row!r}): rows go from 0, the certain token's, to {len(self.tokens) - 1}")
        return self.tokens[row]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnTokens) and self.tokens == other.tokens

    __hash__ = None


def trees_to_judge() -> list[tuple]:
    """A proposal, and the model's own tokens by row."""
    from helpers.decoding.proposals import Proposal

    def case(tokens: list[int], parents: list[int], own: list[int]) -> tuple:
        return Proposal(tokens, parents, ["head"] * len(tokens)), OwnTokens(own)

    return [
        case([7, 8, 9], [-1, 0, 1], [7, 8, 5, 6]),
        case([7, 8, 9], [-1, 0, 1], [7, 8, 9, 6]),
        case([7, 3, 8, 4], [-1, -1, 0, 1], [3, 1, 4, 9, 2]),
        case([7, 3, 4, 4, 6], [-1, -1, 0, 1, 3], [3, 4, 4, 9, 6, 2]),
        case([7, 3, 8], [-1, -1, 0], [5, 8, 8, 1]),
        case([3, 7, 5, 8], [-1, 0, -1, 2], [5, 7, 1, 8, 4]),
        case([], [], [4]),
        case([4, 4, 4], [-1, 0, 1], [4, 4, 4, 4]),
    ]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "08.1",
        "helpers.decoding.proposals:depths",
        trees_by_parents,
        (
            "What do you know of a guess once you know its parent? Parents stand before their children in the list.",
            "A guess whose parent is -1 comes right after the certain token: its depth is 1. Every other one is one "
            "deeper than its parent.",
        ),
        case_names=(
            "a chain",
            "three for the same place",
            "a tree",
            "two branches side by side",
            "one branch after the other",
            "no guesses",
        ),
    ),
    Exercise(
        "08.2",
        "helpers.decoding.acceptance:longest_path",
        trees_to_judge,
        (
            "Walk down from the certain token. At each place ask one thing: which token would the model itself write "
            "here, and is it among the guesses that follow this place?",
            "You stand at `here`, -1 being the certain token. The model's own token there is own_token(here + 1). Find "
            "the guess i with parents[i] == here and tokens[i] equal to it.",
            "If there is one, append i to the accepted and go on from here = i. If there is none, that own token is "
            "the bonus token: return (accepted, token).",
        ),
        tolerance=0,
        case_names=(
            "a chain of which two are right",
            "a chain that is right to its end",
            "the second of two rivals is right",
            "the same token follows two different guesses",
            "none is right",
            "the second branch is right",
            "no guesses",
            "the same token three times",
        ),
    ),
)
