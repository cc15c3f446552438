"""The results contract refuses what would make a claim false, and leaves whole files."""

import copy
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import files
from helpers.errors import CourseError
from helpers.notebook import results
from helpers.notebook.results import Results, load, load_all, load_prompts, validate

MACHINE = {"cpu": "a CPU", "cores": 2, "memory_gib": 8.0, "accelerator": None}


@pytest.fixture
def new(tmp_path):
    """Makes empty results in a folder of their own."""
    return lambda name="08_medusa", **more: Results(name, "cpu", tmp_path, machine=MACHINE, **more)


@pytest.fixture
def document(new, tmp_path):
    """A complete document that keeps the contract."""
    made = new()
    made.metric("medusa.speedup", 2.4, "x", low=2.2, high=2.6, n=450)
    made.metric("medusa.step_ms.rows_1", 3.1, "ms")
    made.invariant("medusa.identical_outputs", True, 450, 450)
    return json.loads(made.write().read_text())


def test_round_trip(new, tmp_path):
    made = new()
    made.prediction("medusa.speedup", 3, "x")
    made.metric("medusa.speedup", 2.4, "x", low=2.2, high=2.6, n=450)
    made.prompt(7, "greedy", "float32", 0.2, 31, "SELECT 'é'", True)
    made.write()
    read = load("cpu", "08_medusa", tmp_path)
    assert read["metrics"]["medusa.speedup"]["n"] == 450
    assert read["metrics"]["medusa.speedup.predicted"]["saved"] <= read["finished"]
    assert read["peak_memory_gib"] > 0 and read["versions"]["python"]
    assert [row["text"] for row in load_prompts("cpu", "08_medusa", tmp_path)] == ["SELECT 'é'"]
    assert list(load_all("cpu", tmp_path)) == ["08_medusa"]
    assert not list((tmp_path / "cpu").glob("*.tmp"))


def test_a_prediction_is_on_disk_before_the_measurement_and_refused_after_it(new, tmp_path):
    made = new()
    made.prediction("medusa.speedup", 3.0, "x")
    saved = json.loads((tmp_path / "cpu" / "08_medusa.predictions.json").read_text())
    assert saved["medusa.speedup.predicted"]["value"] == 3.0
    made.metric("medusa.speedup", 2.4, "x", low=2.2, high=2.6, n=450)
    with pytest.raises(CourseError, match="before the measurement"):
        made.prediction("medusa.speedup", 2.4, "x")


def test_numbers_of_numpy_are_plain_numbers(new):
    numpy = pytest.importorskip("numpy")
    made = new()
    made.metric("a.b", numpy.float32(1.5), "ms", n=numpy.int64(3))
    made.invariant("a.c", numpy.bool_(True), numpy.int64(2), 2)
    made.write()


def test_the_schema_is_one():
    results.validate.__globals__["_validator"]().check_schema(
        json.loads(files.ROOT.joinpath("helpers/notebook/results_schema.json").read_text())
    )


@pytest.mark.parametrize(
    "metric",
    [
        {"key": "medusa.speedup", "value": 2.4, "unit": "x"},  # a ratio without its interval
        {"key": "medusa.speedup", "value": 2.4, "unit": "x", "low": 2.2, "high": 2.6},  # over how many?
        {"key": "medusa.speedup", "value": 2.4, "unit": "x", "low": 2.5, "high": 2.6, "n": 3},
        {"key": "medusa.ms", "value": 2.4, "unit": "ms", "low": 2.2},
        {"key": "medusa.ms", "value": math.nan, "unit": "ms"},
        {"key": "medusa.ms", "value": math.inf, "unit": "ms"},
        {"key": "medusa.ms", "value": 1.0, "unit": "x", "low": math.nan, "high": 2.0, "n": 3},
        {"key": "medusa.ms", "value": "2.4", "unit": "ms"},
        {"key": "medusa.ms", "value": True, "unit": "ms"},
        {"key": "medusa.ms", "value": 2.4, "unit": ""},
        {"key": "medusa.ms", "value": 2.4, "unit": "ms", "kind": "guessed"},
        {"key": "medusa.ms", "value": 2.4, "unit": "ms", "n": 0},
        {"key": "Medusa.ms", "value": 2.4, "unit": "ms"},
        {"key": "speedup", "value": 2.4, "unit": "ms"},
        {"key": "medusa..ms", "value": 2.4, "unit": "ms"},
    ],
)
def test_refuses_a_metric_that_claims_too_much(new, metric):
    made = new()
    with pytest.raises(CourseError, match=metric["key"]):
        made.metric(**metric)
    assert not made.metrics


@pytest.mark.parametrize(("count", "of"), [(451, 450), (0, 0), (-1, 3)])
def test_refuses_an_impossible_count(new, count, of):
    with pytest.raises(CourseError, match=r"medusa\.same"):
        new().invariant("medusa.same", True, count, of)


def test_refuses_a_row_without_tokens_and_a_broken_invariant(new):
    made = new()
    with pytest.raises(CourseError, match="tokens"):
        made.prompt(1, "greedy", "float32", 0.1, 2.5, "", None)
    made.invariant("medusa.same", False, 449, 450)
    with pytest.raises(CourseError, match=r"medusa\.same \(449 of 450\)"):
        made.assert_invariants()


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["profile"], "fast", "profile"),
        (["seconds"], math.nan, "seconds"),
        (["machine", "cores"], 0, "cores"),
        (["metrics", "medusa.speedup", "low"], 2.5, "medusa.speedup"),
        (["metrics", "medusa.speedup", "kind"], "predicted", "saved"),
        (["metrics", "medusa.step_ms.rows_1", "value"], math.inf, "medusa.step_ms.rows_1"),
        (["metrics", "Bad key"], {"value": 1, "unit": "ms", "kind": "measured"}, "Bad key"),
        (["invariants", "medusa.identical_outputs", "count"], 451, "medusa.identical_outputs"),
        (["surprise"], 1, "surprise"),
        (["code_hash"], "", "code_hash"),
    ],
)
def test_validate_names_the_key_at_fault(document, path, value, named):
    validate(document)
    wrong = copy.deepcopy(document)
    place = wrong
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(CourseError, match=named.replace(".", r"\.")):
        validate(wrong)


def test_every_key_is_needed(document):
    for key in document:
        with pytest.raises(CourseError, match=key):
            validate({name: value for name, value in document.items() if name != key})


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    files.write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_whole(path, "half of the new one \ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_missing_and_damaged_results_say_what_to_do(tmp_path):
    with pytest.raises(CourseError, match="--profile cpu --only 08"):
        load("cpu", "08_medusa", tmp_path)
    files.write_whole(tmp_path / "cpu" / "08_medusa.json", '{"notebook": ')
    with pytest.raises(CourseError, match="damaged"):
        load("cpu", "08_medusa", tmp_path)


@given(st.floats(), st.floats(), st.floats())
def test_a_measured_ratio_lies_in_its_interval(value, low, high):
    entry = {"value": value, "unit": "x", "kind": "measured", "low": low, "high": high, "n": 3}
    fine = all(map(math.isfinite, (value, low, high))) and low <= value <= high
    try:
        results.checked("metric", "a.b", entry)
    except CourseError:
        assert not fine
    else:
        assert fine


def test_a_prediction_under_another_name_is_refused_after_the_measurement_too(new):
    made = new()
    made.metric("precision.decode_speedup.bf16", 1.9, "x", low=1.8, high=2.0, n=9)
    for key in ("precision.predicted_decode_speedup.bf16", "precision.decode_speedup.bf16.predicted"):
        with pytest.raises(CourseError, match=r"decode_speedup\.bf16 is measured already"):
            made.prediction(key, 2.0, "x")


def test_damaged_rows_and_a_document_of_another_kind_say_so(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "08_medusa.prompts.jsonl").write_text("{")
    with pytest.raises(CourseError, match="damaged"):
        results.load_prompts("cpu", "08_medusa", tmp_path)
    (tmp_path / "cpu" / "08_medusa.json").write_text("[]")
    with pytest.raises(CourseError, match="no results document"):
        results.load("cpu", "08_medusa", tmp_path)


def test_a_further_model_counts_for_the_hash(tmp_path):
    results = Results("00_start_here", "smoke", tmp_path, ["a/model"], code_hash="0" * 16)
    before = results.model_hash
    results.add_models(["an/adapter", "a/model"])
    assert results.models == ["a/model", "an/adapter"] and results.model_hash != before
