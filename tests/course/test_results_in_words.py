"""Results in words: what was guessed stands beside what was measured, with names, units and intervals."""

import pytest

from helpers.course.results_in_words import guess_sentences, guesses_of, number, percent, rows

SAVED = "2026-11-26T10:00:{:06.3f}+00:00"


def predicted(value, second, unit="x"):
    return {"value": value, "unit": unit, "kind": "predicted", "saved": SAVED.format(second)}


def measured(value, unit="x", **more):
    return {"value": value, "unit": unit, "kind": "measured", **more}


METRICS = {
    "medusa.speedup.predicted": predicted(1.5, 1.0),
    "medusa.accepted_per_step.predicted": predicted(3, 1.01, "tokens"),
    "medusa.train_seconds": measured(143.4, "s"),
    "medusa.predicted_speedup": predicted(2.767, 30.0),
    "medusa.speedup": measured(2.473, low=2.41, high=2.538, n=1450),
    "medusa.decode_speedup.llama_7b.predicted": predicted(2.313, 50.0),
    "medusa.identical_share.bf16": measured(0.9956, "share", low=0.98, high=1.0, n=450),
}


def test_a_row_holds_what_was_said_before_it_was_measured():
    by_name = {row.name: row for row in rows(METRICS)}
    assert len(by_name) == 5
    speed = by_name["speed of a request with Medusa heads, over plain greedy decoding's"]
    assert (speed.value, speed.interval, speed.n, speed.kind) == ("2.473 times", "2.41 to 2.538", "1,450", "measured")
    assert speed.predicted == "your guess: 1.5 times; calculated: 2.767 times"
    share = by_name["answers identical to those of plain greedy decoding (bfloat16)"]
    assert (share.value, share.interval, share.predicted) == ("99.6 %", "98.0 to 100 %", "")


def test_a_prediction_of_what_was_not_measured_has_a_row_of_its_own():
    by_key = {row.key: row for row in rows(METRICS)}
    seven = by_key["medusa.decode_speedup.llama_7b.predicted"]
    assert seven.name == "speed of decoding with these heads (the shape of a Llama of 7 billion)"
    assert (seven.value, seven.kind) == ("2.313 times", "predicted")
    assert by_key["medusa.accepted_per_step.predicted"].kind == "your guess"


def test_guesses_are_what_the_first_cell_saved():
    assert guesses_of(METRICS) == ["medusa.speedup.predicted", "medusa.accepted_per_step.predicted"]
    assert guess_sentences(METRICS) == [
        "Your guess: speed of a request with Medusa heads, over plain greedy decoding's: 1.5 times; it was 2.473 times "
        "(2.41 to 2.538).",
        "Your guess: tokens that a step brings: 3 tokens; it was not measured in this run.",
    ]


def test_a_calculation_is_not_taken_for_a_guess():
    late = {"a.b": measured(1), **{key: METRICS[key] for key in METRICS if "predicted_" in key}}
    assert guesses_of(late) == [] and guesses_of({"a.b": measured(1)}) == [] and guesses_of({}) == []
    only = {"medusa.predicted_speedup": predicted(2.0, 1.0)}
    assert guesses_of(only) == []


def test_numbers_are_written_as_people_write_them():
    written = [number(value) for value in (450, 2.4, 0.98765, 12345.6, 1234567.0, 0.00012346, -3.0, 0)]
    assert written == ["450", "2.4", "0.9877", "12,346", "1,234,567", "0.0001235", "-3", "0"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0"), (1, "100"), (0.5, "50.0"), (449 / 450, "99.8"), (0.9999, "over 99.9"), (0.0001, "under 0.1")],
)
def test_all_is_not_said_of_nearly_all(share, text):
    assert percent(share) == text
