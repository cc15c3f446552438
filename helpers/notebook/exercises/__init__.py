"""Exercises that check themselves: `check("00.1", fn)`, `hint("00.1")`, `solution("00.1")`.

Either way the notebook goes on: with the learner's function where it is right, else with the course's own. Each
notebook has a file here with its exercises. What cases need is imported inside the function that makes them: who checks
00.1 should not wait for what the exercises of a later notebook import.
"""

from __future__ import annotations

from collections.abc import Callable

from helpers.errors import CourseError
from helpers.notebook.exercises import (
    adapters,
    batching,
    cloud,
    fp8,
    half_precision,
    kernels,
    kv_cache,
    lora,
    medusa,
    mixed_precision,
    opponents,
    parallel,
    pruning,
    quantization,
    quantization_extras,
    serving,
    speculative,
    start_here,
)
from helpers.notebook.exercises.exercise import Exercise
from helpers.notebook.exercises.verdict import judge

NOTEBOOKS = (
    start_here,
    kv_cache,
    kernels,
    half_precision,
    fp8,
    mixed_precision,
    quantization,
    quantization_extras,
    lora,
    adapters,
    pruning,
    batching,
    parallel,
    speculative,
    medusa,
    opponents,
    serving,
    cloud,
)
EXERCISES: dict[str, Exercise] = {exercise.id: exercise for notebook in NOTEBOOKS for exercise in notebook.EXERCISES}
_hints_given: dict[str, int] = {}


def find(exercise_id: str) -> Exercise:
    """The exercise of that id; CourseError where there is none."""
    if exercise_id not in EXERCISES:
        known = ", ".join(sorted(EXERCISES))
        raise CourseError(
            f'There is no exercise {exercise_id!r}: take one of {known}, as in check("00.1", your_function).'
        )
    return EXERCISES[exercise_id]


def check(exercise_id: str, yours: Callable) -> Callable:
    """Print what there is to say about `yours`; returns the function to go on with, `yours` or the reference."""
    exercise = find(exercise_id)
    verdict = judge(yours, exercise)
    print(verdict.text)
    return yours if verdict.right else exercise.function()


def hint(exercise_id: str) -> None:
    """Print the next hint; after the last one it begins again."""
    exercise = find(exercise_id)
    number = _hints_given.get(exercise_id, 0) % len(exercise.hints) + 1
    _hints_given[exercise_id] = number
    print(f"hint {number} of {len(exercise.hints)}: {exercise.hints[number - 1]}")
    if number == len(exercise.hints):
        print(f'That was the last one; solution("{exercise_id}") shows the course\'s own.')


def solution(exercise_id: str) -> None:
    """Print the course's own function, cut from the package's tested source."""
    print(find(exercise_id).source())
