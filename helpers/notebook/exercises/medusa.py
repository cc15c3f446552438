"""The exercises of notebook 08."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def states_and_weights() -> list[tuple]:
    """Hidden states (n, hidden), a weight (hidden, hidden), a bias (hidden,)."""
    import torch

    draw = torch.Generator().manual_seed(8)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    return [
        (random(1, 4), torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)),
        (random(1, 4), random(4, 4), torch.zeros(4, dtype=torch.float64)),
        (random(3, 4), random(4, 4), random(4)),
    ]


def trees_by_parents() -> list[tuple]:
    """Parents of a tree's guesses, -1 for the certain token."""
    trees = [-1, 0, 1], [-1, -1, -1], [-1, -1, 0, 0, 2], [-1, -1, 0, 1], [-1, 0, -1, 2], []
    return [(parents,) for parents in trees]


def ranks_and_trees() -> list[tuple]:
    """For each position of an answer the ranks of what came, by head; the paths that the tree has."""
    two, chain = ((0,), (1,), (0, 0)), ((0,), (0, 0))
    return [
        ([[5, 0], [7], []], two),
        ([[0, 0], [0, 0], [0, 0], [0], []], chain),
        ([[1, 0], [0, 0], [0], []], two),
        ([[0], []], two),
        ([[0, 0], [3], []], ()),
    ]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "08.1",
        "helpers.speculation.medusa_heads:residual_block",
        states_and_weights,
        (
            "A linear layer first: x @ weight.T + bias.",
            "torch.nn.functional.silu is z * sigmoid(z).",
            "x is added at the end: with W = 0 and b = 0 nothing changes, since silu(0) = 0.",
        ),
        case_names=("untrained", "no bias", "three states"),
    ),
    Exercise(
        "08.2",
        "helpers.decoding.proposals:depths",
        trees_by_parents,
        (
            "A guess whose parent is -1 comes right after the certain token: its depth is 1.",
            "Every other one is one deeper than its parent, which stands before it in the list.",
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
        "08.3",
        "helpers.speculation.tree_choice:accepted_steps",
        ranks_and_trees,
        (
            "At a position go down as long as the path of ranks so far is in the tree.",
            "A step that went down d places emits d + 1 tokens, but not more than the answer still has.",
            "The next step starts that many places further on; the last position is the end, and needs no step.",
        ),
        case_names=("nothing is right", "a chain that is right", "the second best", "short", "no tree"),
    ),
)
