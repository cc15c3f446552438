"""How values are told in a message: what they are, how much, and how far off."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np
import torch

KINDS = {bool: "a bool", np.bool_: "a bool", Real: "a number", str: "a string", torch.Tensor: "a tensor",
         np.ndarray: "a numpy array", list: "a list", tuple: "a tuple", dict: "a dict"}  # fmt: skip
LONGEST = 60  # characters of a value that is told whole


def kind_of(value: object) -> str:
    """What a value is, in words. A class goes by its name: one that a notebook shows is defined there once more."""
    for kind, words in KINDS.items():
        if isinstance(value, kind):
            return words
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def as_float(number: Real) -> float:
    """The number, infinite where it is a whole number larger than any float."""
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, 1 if number > 0 else -1)


def shown(value: object, longest: int = LONGEST) -> str:
    """A value as text: numbers short, anything else as Python writes it, cut after `longest` characters."""
    if kind_of(value) != "a number":
        text = repr(value)
        return text if len(text) <= longest else f"{text[:longest]}..."
    return str(value) if isinstance(value, Integral) and abs(value) < 1e15 else f"{as_float(value):.6g}"


def wrong_kind(found: object, kind: str) -> str:
    """ "it is a string ('2 ms'), it should be a number"."""
    value = f" ({shown(found)})" if kind_of(found) in ("a bool", "a number", "a string") else ""
    one = isinstance(found, torch.Tensor | np.ndarray) and math.prod(found.shape) == 1
    advice = " (.item() makes it one)" if one and kind == "a number" else ""
    return f"it is {kind_of(found)}{value}, it should be {kind}{advice}"


def unequal(found: object, wanted: object) -> str:
    """ "it is 3, it should be 4 (yours is 0.75 times that)": the factor often gives the mistake away."""
    texts = shown(found), shown(wanted)
    if texts[0] == texts[1]:
        texts = repr(found), repr(wanted)
    said = f"it is {texts[0]}, it should be {texts[1]}"
    if {kind_of(found), kind_of(wanted)} != {"a number"}:
        return said
    a, b = as_float(found), as_float(wanted)
    factor = a / b if a and b else 0
    tells = factor and math.isfinite(factor) and f"{factor:.3g}" != "1"
    return f"{said} (yours is {factor:.3g} times that)" if tells else said


def unequal_strings(found: str, wanted: str) -> str:
    """Two strings and where they part; of long ones, what stands around that place."""
    pairs = enumerate(zip(found, wanted))
    place = next((i for i, (a, b) in pairs if a != b), min(len(found), len(wanted)))
    if max(len(found), len(wanted)) > LONGEST:
        found, wanted = (text[max(0, place - LONGEST // 2) : place + LONGEST // 2] for text in (found, wanted))
    return f"from index {place} on it differs: it is {found!r}, it should be {wanted!r}"
