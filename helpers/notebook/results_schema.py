"""Holds results to their contract: results_schema.json, and the few rules that a schema can't say."""

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

from helpers.errors import CourseError


def validate(document: Mapping) -> None:
    """Raise CourseError naming the key at fault when a results document breaks the contract."""
    if not isinstance(document, Mapping):
        raise CourseError("This is no results document: it should be an object with metrics and invariants.")
    for error in sorted(_validator().iter_errors(document), key=lambda error: list(map(str, error.absolute_path))):
        where = ".".join(map(str, error.absolute_path)) or "the document"
        raise CourseError(f"Results of {document.get('notebook', '?')}: {where}: {error.message}.")
    for key in ("seconds", "peak_memory_gib"):
        _finite(key, document[key])
    for key, entry in document["metrics"].items():
        _check_rules(key, entry)
    for key, entry in document["invariants"].items():
        _check_rules(key, entry)


@cache
def _validator(part: str | None = None) -> Draft202012Validator:
    schema = json.loads(Path(__file__).with_name("results_schema.json").read_text(encoding="utf-8"))
    return Draft202012Validator({"$ref": f"#/$defs/{part}", "$defs": schema["$defs"]} if part else schema)


def checked(part: str, key: str, entry: dict) -> dict:
    """The entry, if it keeps the contract: a mistake shows in the cell that made it."""
    for error in [*_validator("key").iter_errors(key), *_validator(part).iter_errors(entry)]:
        where = ".".join(map(str, error.absolute_path))
        raise CourseError(f"{key}{f', {where}' if where else ''}: {error.message}.")
    _check_rules(key, entry)
    return entry


def _check_rules(key: str, entry: Mapping) -> None:
    """What the schema can't say: finite numbers, value inside its interval, no more cases than there were."""
    for name, value in entry.items():
        _finite(f"{key}.{name}", value)
    if "low" in entry and not entry["low"] <= entry["value"] <= entry["high"]:
        raise CourseError(f"{key}: {entry['value']} is not between {entry['low']} and {entry['high']}.")
    if entry.get("count", 0) > entry.get("of", math.inf):
        raise CourseError(f"{key}: {entry['count']} of {entry['of']} is more than there are.")


def _finite(key: str, value) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise CourseError(f"{key} is {value}: a result is a finite number; look at what it was computed from.")
