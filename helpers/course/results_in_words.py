"""A notebook's results in words: each metric with its name, value, interval and what was predicted before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from helpers.notebook.metric_words import words_of
from helpers.notebook.results import predicts

UNITS = {"x": "times", "ratio": "times", "R2": ""}
ONE_CELL = 1.0  # seconds: a learner's guesses are saved together, before anything is computed


@dataclass(frozen=True)
class Row:
    """One metric, everything as text."""

    key: str
    name: str
    value: str
    interval: str
    n: str
    kind: str
    predicted: str  # before the measurement, by the learner or by a calculation


def rows(metrics: Mapping[str, Mapping]) -> list[Row]:
    """A row for each metric; a prediction stands in the row of what it predicts, if that was measured."""
    guesses, beside = guesses_of(metrics), predictions_beside(metrics)
    made = []
    for key, entry in metrics.items():
        if any(key in predictions for predictions in beside.values()):
            continue
        before = []
        for prediction in beside.get(key, ()):
            who = "your guess" if prediction in guesses else "calculated"
            before.append(f"{who}: {quantity(metrics[prediction])}")
        name = words_of(predicts(key) if entry["kind"] == "predicted" else key)
        n = f"{entry['n']:,}" if "n" in entry else ""
        kind = "your guess" if key in guesses else entry["kind"]
        made.append(Row(key, name, quantity(entry), interval(entry), n, kind, "; ".join(before)))
    return made


def guess_sentences(metrics: Mapping[str, Mapping]) -> list[str]:
    """What the learner guessed, and what was measured."""
    sentences = []
    for key in guesses_of(metrics):
        measured = metrics.get(predicts(key))
        found = f"it was {quantity(measured)}" if measured else "it was not measured in this run"
        between = f" ({interval(measured)})" if measured and interval(measured) else ""
        sentences.append(f"Your guess: {words_of(predicts(key))}: {quantity(metrics[key])}; {found}{between}.")
    return sentences


def predictions_beside(metrics: Mapping[str, Mapping]) -> dict[str, list[str]]:
    """The keys of predictions by the key of what they predict, for all that was measured or simulated."""
    beside: dict[str, list[str]] = {}
    for key, entry in metrics.items():
        about = metrics.get(predicts(key))
        if entry["kind"] == "predicted" and about is not None and about["kind"] != "predicted":
            beside.setdefault(predicts(key), []).append(key)
    return beside


def guesses_of(metrics: Mapping[str, Mapping]) -> list[str]:
    """The keys of the learner's own guesses: the predictions that the first cell saved, before any calculation."""
    saved = {key: datetime.fromisoformat(entry["saved"]) for key, entry in metrics.items() if "saved" in entry}
    if not saved or next(iter(metrics)) not in saved:  # something was measured before the first prediction
        return []
    first = min(saved.values())
    return [
        key for key, time in saved.items() if (time - first).total_seconds() < ONE_CELL and key.endswith(".predicted")
    ]


def quantity(entry: Mapping) -> str:
    """The value with its unit, a share in percent."""
    if entry["unit"] == "share":
        return f"{percent(entry['value'])} %"
    return f"{number(entry['value'])} {UNITS.get(entry['unit'], entry['unit'])}".strip()


def interval(entry: Mapping) -> str:
    """The interval's ends, in the unit of the value; empty where there is none."""
    if "low" not in entry:
        return ""
    write = percent if entry["unit"] == "share" else number
    return f"{write(entry['low'])} to {write(entry['high'])}" + (" %" if entry["unit"] == "share" else "")


def percent(share: float) -> str:
    """Hundredths with one digit after the point; 100 and 0 only where it is all or nothing."""
    if share in (0, 1):
        return f"{100 * share:.0f}"
    text = f"{100 * share:.1f}"
    return {"100.0": "over 99.9", "0.0": "under 0.1"}.get(text, text)


def number(value: float) -> str:
    """Four digits, with commas and without an exponent where people would write none."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
