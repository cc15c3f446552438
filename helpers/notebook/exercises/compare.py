"""Where two results differ, in one sentence that points at the fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from numbers import Integral

import numpy as np
import torch

from helpers.notebook.exercises.wording import as_float, kind_of, unequal, unequal_strings, wrong_kind

Fault = tuple[str, str]  # the way to the part that is wrong, as Python writes it, and what is wrong with it


def difference(actual: object, expected: object, tolerance: float = 1e-6) -> str | None:
    """None when equal within the relative `tolerance` (in a tensor, to its largest value; 0: exactly), else the first
    that is wrong: the kind of thing, its shape, dtype, length or keys, or a value with its place."""
    fault = _fault(actual, expected, tolerance)
    if fault is None:
        return None
    way, what = fault
    return f"at {way}, {what}" if way else what


def _fault(actual: object, expected: object, tolerance: float) -> Fault | None:
    kind = kind_of(expected)
    if kind_of(actual) != kind:
        return "", wrong_kind(actual, kind)
    if kind in COMPARE:
        return COMPARE[kind](actual, expected, tolerance)
    if all(is_dataclass(one) and not isinstance(one, type) for one in (actual, expected)):
        one, other = ({f.name: getattr(x, f.name) for f in fields(x)} for x in (actual, expected))
        return _named(one, other, tolerance, "field", ".{}")
    return None if actual == expected else ("", unequal(actual, expected))


def _numbers(actual, expected, tolerance: float) -> Fault | None:
    a, b = as_float(actual), as_float(expected)
    # Nothing absolute beside a number other than 0: the smallest numbers of a format have to stay apart.
    close = math.isclose(a, b, rel_tol=tolerance, abs_tol=0 if b else tolerance * 1e-6)
    counts = isinstance(actual, Integral) and isinstance(expected, Integral)
    same = actual == expected if counts else close or (math.isnan(a) and math.isnan(b))
    return None if same else ("", unequal(actual, expected))


def _strings(actual: str, expected: str, tolerance: float) -> Fault | None:
    return None if actual == expected else ("", unequal_strings(actual, expected))


def _arrays(actual, expected, tolerance: float) -> Fault | None:
    if actual.shape != expected.shape:
        return "", f"its shape is {tuple(actual.shape)}, it should be {tuple(expected.shape)}"
    for name in ("dtype", "device", "layout"):
        one, other = (getattr(array, name, None) for array in (actual, expected))
        if one != other:
            return "", f"its {name} is {one}, it should be {other}"
    if getattr(expected, "requires_grad", False) and not getattr(actual, "requires_grad", False):
        return "", "no gradient flows through it, so nothing could learn: it was detached, or made under no_grad"
    a, b = _numpy(actual), _numpy(expected)
    if np.issubdtype(b.dtype, np.inexact):
        # Against the largest: a value that cancels to nearly nothing carries the rounding of the others.
        largest = np.abs(b[np.isfinite(b)]).max(initial=0)
        wrong = ~np.isclose(a, b, rtol=0, atol=tolerance * largest, equal_nan=True)
    else:
        wrong = a != b
    if not wrong.any():
        return None
    place = np.unravel_index(int(wrong.argmax()), wrong.shape)
    count = f"; {wrong.sum()} of {wrong.size} values differ" if wrong.size > 1 else ""
    return str([int(i) for i in place]) if place else "", unequal(a[place].item(), b[place].item()) + count


def _numpy(array: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu().to_dense()
    return (array.double() if array.is_floating_point() else array).numpy()  # numpy has no bfloat16


def _sequences(actual, expected, tolerance: float) -> Fault | None:
    if len(actual) != len(expected):
        return "", f"its length is {len(actual)}, it should be {len(expected)}"
    return _parts(actual, expected, tolerance, range(len(expected)), "[{!r}]")


def _dicts(actual: dict, expected: dict, tolerance: float) -> Fault | None:
    return _named(actual, expected, tolerance, "key", "[{!r}]")


def _named(actual: dict, expected: dict, tolerance: float, word: str, way: str) -> Fault | None:
    missing, extra = ([key for key in a if key not in b] for a, b in ((expected, actual), (actual, expected)))
    if missing:
        return "", f"it lacks the {word} {missing[0]!r}"
    if extra:
        return "", f"it has the {word} {extra[0]!r}, which should not be there"
    return _parts(actual, expected, tolerance, expected, way)


def _parts(actual, expected, tolerance: float, keys: Iterable, way: str) -> Fault | None:
    """The first fault among parts; `way` is how Python writes the way to a key's part."""
    for key in keys:
        fault = _fault(actual[key], expected[key], tolerance)
        if fault:
            return way.format(key) + fault[0], fault[1]
    return None


COMPARE: dict[str, Callable[..., Fault | None]] = {
    "a number": _numbers,
    "a string": _strings,
    "a tensor": _arrays,
    "a numpy array": _arrays,
    "a list": _sequences,
    "a tuple": _sequences,
    "a dict": _dicts,
}
