"""What there is to say about a learner's function: right, not yet and where, or not attempted."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

from helpers.notebook.exercises.compare import difference
from helpers.notebook.exercises.exercise import Exercise
from helpers.notebook.exercises.wording import kind_of, shown

GOES_ON = "Going on with the reference."
STUB = "not attempted - going on with the reference"
LONGEST = 80  # characters of arguments that are shown


@dataclass(frozen=True)
class Verdict:
    """Whether it is right, and the text to print."""

    right: bool
    text: str


def judge(yours: object, exercise: Exercise) -> Verdict:
    """Call `yours` and the reference with copies of each case, so that neither sees what the other did to them."""
    if not callable(yours):
        return Verdict(
            False,
            f'This is {kind_of(yours)}, not a function: write check("{exercise.id}", your_function), '
            f"with no brackets after its name. {GOES_ON}",
        )
    reference, cases, changes = exercise.function(), exercise.cases(), False
    for number, case in enumerate(cases, 1):
        names = inspect.signature(reference).bind(*case).arguments
        trouble = _cannot_take(yours, case, list(names))
        if trouble:
            return Verdict(False, f"Not yet: {trouble}. {GOES_ON}")
        here = f"Not yet: in case {number}{_case_text(exercise, number, names)},"
        given, given_to_reference = deepcopy(case), deepcopy(case)
        expected = reference(*given_to_reference)
        try:
            actual = yours(*given)
        except Exception as error:
            if number == 1 and isinstance(error, NotImplementedError):
                return Verdict(False, STUB)
            return Verdict(False, f"{here} it raised {_raised(error, yours)}. {GOES_ON}")
        if number == 1 and (actual is ... or (actual is None and expected is not None)):
            return Verdict(False, f"{STUB} (it returns {actual})")
        fault = difference(actual, expected, exercise.tolerance)
        if fault:
            return Verdict(False, f"{here} {fault}. {GOES_ON}")
        changes |= bool(difference(given, case, 0) and not difference(given_to_reference, case, 0))
    beware = " But it changes what it is given, which its caller may still need: work on a copy." if changes else ""
    return Verdict(True, f"Right, in all {len(cases)} cases.{beware}")


def _cannot_take(yours: Callable, case: tuple, names: list[str]) -> str | None:
    """Why the function can't be called like this, None when it can."""
    try:
        signature = inspect.signature(yours)
    except (TypeError, ValueError):  # built-in functions may have none
        return None
    try:
        signature.bind(*case)
    except TypeError:
        return f"it takes {signature}, it should take ({', '.join(names)})"
    return None


def _case_text(exercise: Exercise, number: int, arguments: dict[str, object]) -> str:
    """The case by its name, else by its arguments where they are short."""
    if exercise.case_names:
        return f" ({exercise.case_names[number - 1]})"
    text = ", ".join(f"{name}={shown(value, LONGEST)}" for name, value in arguments.items())
    return f" ({text})" if len(text) <= LONGEST and "\n" not in text else ""


def _raised(error: Exception, yours: Callable) -> str:
    """The error, and the last line in the learner's own code (its file, a cell included) that led to it."""
    first = (str(error).strip().splitlines() or [""])[0]
    message = f"{type(error).__name__}: {first}" if first else type(error).__name__
    file = getattr(getattr(inspect.unwrap(yours), "__code__", None), "co_filename", None)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not own:
        return message
    return f"{message}, at line {own[-1].lineno}" + (f": `{own[-1].line}`" if own[-1].line else "")
