"""Checks a learner's function against the course's own: right, or where it is wrong, or not attempted.

Either way the notebook goes on, with the reference where the learner's function can't be used.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from math import isclose
from numbers import Real


def check(yours: Callable, reference: Callable, cases: Sequence[tuple], tolerance: float = 1e-6) -> Callable:
    """Call both with each tuple of arguments and print the verdict; returns the function to go on with."""
    for number, case in enumerate(cases, 1):
        wanted = reference(*case)
        try:
            found = yours(*case)
        except Exception as error:
            own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == yours.__code__.co_filename]
            line = f" at line {own[-1].lineno}" if own else ""  # none: it could not even be called like this
            print(f"It raised {type(error).__name__}{line}: {error}. Going on with the reference.")
            return reference
        if found is None:
            print("Not attempted (it returns None): going on with the reference.")
            return reference
        if not isinstance(found, Real) or isinstance(found, bool):
            print(f"It returned a {type(found).__name__}, not a number. Going on with the reference.")
            return reference
        if not isclose(found, wanted, rel_tol=tolerance):
            factor = found / wanted if wanted else float("nan")
            print(f"Not yet: case {number} gives {found:.6g}, it should be {wanted:.6g} (yours is {factor:.3g} times "
                  "that). Going on with the reference.")  # fmt: skip
            return reference
    print(f"Right, in all {len(cases)} cases.")
    return yours
