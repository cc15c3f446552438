"""This machine's equation: fitted once, in notebook 00, kept beside its results, read by every later notebook."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.measuring.cost_model import FORMS, Measured, StepTime, errors, fit, r2


@dataclass(frozen=True)
class Fitted:
    """The equation in the form that fits better, and how well it does: `error` is the largest relative error over the
    steps of the shape `held_out`, which the fit never saw; `r2` is over all `num_points` steps."""

    equation: StepTime
    held_out: str
    error: float
    r2: float
    num_points: int


def fit_better_form(points: Sequence[Measured], held_out: str) -> Fitted:
    """Fit both forms (the sum of reading and computing, or the larger of them) to all shapes but `held_out`."""
    fitted = [p for p in points if p.name != held_out]
    unseen = [p for p in points if p.name == held_out]
    if not unseen or not fitted:
        raise CourseError(f"To hold out {held_out} there have to be steps of it, and of another shape.")
    equations = [fit(fitted, form) for form in FORMS]
    best = min(equations, key=lambda equation: sum(e * e for e in errors(equation, fitted)))
    return Fitted(best, held_out, max(map(abs, errors(best, unseen))), r2(best, points), len(points))


def save_equation(profile: str, fitted: Fitted, folder: Path | None = None) -> Path:
    """Write build/results/<profile>/equation.json; a constant too small to be seen (an infinite rate) is null."""
    document = asdict(fitted)
    for constants in (document["equation"]["bandwidth"], document["equation"]["rate"]):
        constants.update({d: None for d, value in constants.items() if math.isinf(value)})
    return write_whole(_path(profile, folder), json.dumps(document, indent=1, allow_nan=False) + "\n")


def load_equation(profile: str, folder: Path | None = None) -> Fitted:
    """The equation that notebook 00 fitted on this machine under that profile.

    Raises:
        CourseError: 00 has not run under it, or the file is damaged.
    """
    remedy = f"run `python -m helpers run --profile {profile} --only 00`"
    try:
        document = json.loads(_path(profile, folder).read_text(encoding="utf-8"))
        written = document.pop("equation")
        for constants in (written["bandwidth"], written["rate"]):
            constants.update({d: math.inf for d, value in constants.items() if value is None})
        return Fitted(equation=StepTime(**written), **document)
    except FileNotFoundError:
        raise CourseError(f"Notebook 00 has fitted no equation under the profile {profile} yet: {remedy}.") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CourseError(f"equation.json of the profile {profile} is damaged: {remedy}.") from None


def _path(profile: str, folder: Path | None) -> Path:
    return Path(folder or build_root() / "results") / profile / "equation.json"
