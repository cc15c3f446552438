"""The exercises of notebook 05."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def lengths_and_places() -> list[tuple]:
    """Answers' lengths, slots of the batch."""
    return [
        ([2, 9, 1, 4], 2),
        ([5, 5, 5], 3),
        ([3], 4),
        ([1, 8, 1, 8, 1, 8], 2),
        ([4, 1, 1, 1, 6, 2], 3),
        ([2, 3, 4], 1),
    ]


def tables() -> list[tuple]:
    """Positions, block table, tokens in a block."""
    return [
        ([0, 15, 16, 40], [7, 2, 9], 16),
        (range(6), [1, 0, 2], 2),
        ([3, 2], [5], 4),
        ([], [4, 4], 16),
        ([0, 1, 2], [8, 6, 7], 1),
    ]


def prompts_and_budgets() -> list[tuple]:
    """Unread tokens of each prompt, the oldest first; the budget."""
    return [
        ([1000, 40, 90], 256),
        ([1000, 2], 64),
        ([10, 300], 256),
        ([50, 60, 70], 60),
        ([], 32),
        ([9, 8], 7),
        ([5, 1, 1], 100),
    ]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "05.1",
        "helpers.engine.steps_needed:continuous_steps",
        lengths_and_places,
        (
            "For each slot keep the step at which it is free again. Where does the next answer go?",
            "To the slot that is free first: its end moves by the answer's length. The last end is the result.",
            "ends = [0] * batch_size, and for each length: slot = ends.index(min(ends)); ends[slot] += length.",
        ),
        case_names=(
            "the example",
            "all at once",
            "more slots than answers",
            "long and short in turns",
            "a long one comes late",
            "one slot",
        ),
    ),
    Exercise(
        "05.2",
        "helpers.decoding.sequence_cache:locate",
        tables,
        (
            "How many whole blocks stand before a position, and how many tokens are left over?",
            "blocks[place // block_size] is the block, place % block_size the offset in it.",
        ),
        case_names=("the example", "small blocks", "backwards", "no position", "a token a block"),
    ),
    Exercise(
        "05.3",
        "helpers.engine.scheduler:divide",
        prompts_and_budgets,
        (
            "Two rounds: first the oldest alone, then all by length. What does each of them still need, and what is "
            "still left?",
            "min(what it still needs, what is left) each time; in the first round also at most half: budget - budget "
            "// 2. Give the tokens by the prompt's number, so that the list stays in its order.",
            "sorted(range(len(unread)), key=unread.__getitem__) are the prompts' numbers, the shortest first.",
        ),
        case_names=(
            "a long one and two short ones",
            "a short one needs little",
            "the oldest is short",
            "too little for all",
            "nobody",
            "an odd budget",
            "enough for all",
        ),
    ),
)
