"""How values appear in a message: what they are, how much, and how far off."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np
import torch

KINDS = {
    bool: "a bool",
    np.bool_: "a bool",
    Real: "a number",
    str: "a string",
    torch.Tensor: "a tensor",
    np.ndarray: "a numpy array",
    list: "a list",
    tuple: "a tuple",
    dict: "a dict",
}
LONGEST = 60  # characters of a value that is shown whole


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


def wrong_kind(actual: object, kind: str) -> str:
    """ "it is a string ('2 ms'), it should be a number"."""
    value = f" ({shown(actual)})" if kind_of(actual) in ("a bool", "a number", "a string") else ""
    one = isinstance(actual, torch.Tensor | np.ndarray) and math.prod(actual.shape) == 1
    advice = " (.item() makes it one)" if one and kind == "a number" else ""
    return f"it is {kind_of(actual)}{value}, it should be {kind}{advice}"


def unequal(actual: object, expected: object) -> str:
    """ "it is 3, it should be 4 (yours is 0.75 times that)": the factor often gives the mistake away."""
    texts = shown(actual), shown(expected)
    if texts[0] == texts[1]:
        texts = repr(actual), repr(expected)
    sentence = f"it is {texts[0]}, it should be {texts[1]}"
    if {kind_of(actual), kind_of(expected)} != {"a number"}:
        return sentence
    a, b = as_float(actual), as_float(expected)
    factor = a / b if a and b else 0
    tells = factor and math.isfinite(factor) and f"{factor:.3g}" != "1"
    return f"{sentence} (yours is {factor:.3g} times that)" if tells else sentence


def unequal_strings(actual: str, expected: str) -> str:
    """Two strings and where they part; of long ones, what stands around that place."""
    pairs = enumerate(zip(actual, expected))
    place = next((i for i, (a, b) in pairs if a != b), min(len(actual), len(expected)))
    if max(len(actual), len(expected)) > LONGEST:
        actual, expected = (text[max(0, place - LONGEST // 2) : place + LONGEST // 2] for text in (actual, expected))
    return f"from index {place} on it differs: it is {actual!r}, it should be {expected!r}"
