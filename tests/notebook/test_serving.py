"""What notebook 11 writes is what clients and the engine saw; a wrong answer is counted."""

import httpx
import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers.notebook import serving_bench, serving_charts, serving_others
from helpers.notebook.serving_bench import ServingBench
from helpers.notebook.serving_sizes import SERVING, ServingSizes
from helpers.serving import client
from helpers.serving.backends import DEVICES, Needs, choose_backend
from helpers.serving.client import Told
from helpers.serving.load_test import Load, Sample
from helpers.serving.run import running
from helpers.text_to_sql.dataset import load_split

NOTEBOOK = "11_serving"

SIZES = ServingSizes(2, 5, 4, 2, 6, 2, 2, (0.25, 0.75, 1.5), 4, False, 0)


@pytest.fixture
def bench(model, tokenizer):
    examples = load_split("test", limit=6)
    prompts = [f"How many are there of kind {k}?" for k in range(6)]
    return ServingBench("tiny", model, tokenizer, examples, prompts, SIZES)


@pytest.fixture
def url(bench):
    with running(bench.worker(), "tiny") as url:
        yield url


def value(results, key):
    return results.metrics[f"serving.{key}"]["value"]


def test_everything_that_the_notebook_measures(results, bench, url, capsys):
    serving_bench.compare_overhead(results, bench, url)
    difference = value(results, "inter_token_ms.server") - value(results, "inter_token_ms.engine")
    assert value(results, "overhead_ms") == pytest.approx(difference)
    serving_bench.complete_streams(results, bench, url)
    assert value(results, "completed") == SIZES.streams
    serving_bench.compare_beams(results, bench, url, width=2)
    assert value(results, "right.greedy") == value(results, "right.beams") == 0.0  # a random model
    serving_charts.draw_reliability(serving_bench.judge_confidence(results, bench, url))
    found = serving_bench.offer_loads(results, bench, url)
    assert set(found) == set(SIZES.loads)
    serving_charts.draw_loads(found)
    serving_bench.read_knee(results, found, 2.0)
    p90 = {share: found[share].statistics("time_to_first_token")["p90"] for share in (0.25, 0.75)}
    assert value(results, "waiting_ratio") == pytest.approx(p90[0.75] / p90[0.25])
    assert "; you guessed 2" in capsys.readouterr().out
    serving_bench.show_refusals(bench, 1)
    assert "4 at once to a server that takes 1: 1 answered, 3 refused (429)" in capsys.readouterr().out
    serving_others.compare_servers(results, bench)
    assert "Other servers are left out" in capsys.readouterr().out


def test_an_answer_that_differs_in_parts_is_counted(results, bench, monkeypatch, capsys):
    whole = [Told("a b c d", ["a"] * 4, [-1.0] * 4, "eos"), Told("e f", ["e"] * 2, [-1.0] * 2, "eos")]
    parts = [[Told("a b"), Told(" c d")], [Told("e"), Told(" g")]]
    wholes, series = iter(whole), iter(parts)
    monkeypatch.setattr(client, "ask", lambda *args, **more: next(wholes))
    monkeypatch.setattr(client, "chained", lambda *args, **more: next(series))
    serving_bench.compare_chained(results, bench, "")
    invariant = results.invariants["serving.chained_equals_one"]
    assert (invariant["holds"], invariant["count"], invariant["of"]) == (False, 1, 2)
    told = "1 of 2 answers in requests of 8 tokens are those of one request; 2.0 requests an answer."
    assert told in capsys.readouterr().out


def test_the_confident_half_is_counted_by_itself(results, bench, monkeypatch):
    right = [example.answer for example in bench.examples[:4]]
    told = [Told(text, [text], [log], "eos") for text, log in zip([*right[:2], "no", "no"], (0, -0.1, -1, -2))]
    monkeypatch.setattr(client, "ask_all", lambda *args, **more: told)
    found = serving_bench.judge_confidence(results, bench, "")
    assert value(results, "right.more_confident") == 1.0 and value(results, "right.less_confident") == 0.0
    error = sum(abs(np.exp(log) - good) for log, good in zip((0, -0.1, -1, -2), (1, 1, 0, 0))) / 4
    assert value(results, "calibration_error") == pytest.approx(error, abs=1e-6) and sum(b.count for b in found) == 4


def test_a_refusal_is_told_and_nothing_is_timed(results, bench, monkeypatch):
    refusal = httpx.Response(400, json={"error": {"message": "no."}})
    monkeypatch.setattr(serving_bench.httpx, "post", lambda *args, **more: refusal)
    with pytest.raises(Exception, match=r"The server refused the request \(400\): no\."):
        serving_bench.compare_beams(results, bench, "")
    assert not results.metrics


@pytest.mark.parametrize(
    ("waits", "before", "words"),
    [
        ((1.0, 2.0, 9.0), 0.75, "The knee lies between 75% and 150%"),
        ((1.0, 4.0, 2.0), 0.25, "The knee lies between 25% and 75%"),
        ((1.0, 1.5, 2.0), 1.5, "Up to 150% there is no knee"),
    ],
)
def test_the_knee_is_named(results, waits, before, words, capsys):
    loads = {share: Load([Sample(0.0, (wait, wait + 1), 200)]) for share, wait in zip(SIZES.loads, waits)}
    serving_bench.read_knee(results, loads, 2.0)
    assert value(results, "load_before_the_knee") == before and words in capsys.readouterr().out


def test_figures_go_by_their_names(results):
    samples = [Sample(0.0, (1.0, 1.5, 2.0), 200), Sample(1.0, (2.0, 4.0), 200), Sample(1.0, (), 429)]
    serving_bench.note_load(results, "load_50", Load(samples))
    assert value(results, "request_throughput.load_50") == pytest.approx(2 / 4)
    assert value(results, "output_token_throughput.load_50") == pytest.approx(5 / 4)
    assert value(results, "inter_token_latency.load_50.avg") == pytest.approx((0.5 + 2.0) / 2)


def test_the_flowchart_asks_what_the_function_decides():
    serving_charts.draw_questions()
    drawn = {text.get_text() for text in plt.gca().texts}
    names = {
        choose_backend(
            Needs(device, 80e9, weights, users=users, changes_often=often, on_sagemaker=hosted, num_models=n)
        ).name
        for device in DEVICES
        for weights in (16e9, 160e9)
        for users in (1, 64)
        for often in (True, False)
        for hosted in (True, False)
        for n in (1, 3)
    }
    assert names <= drawn


def test_every_profile_measures_what_is_guessed():
    for sizes in SERVING.values():
        assert {0.25, 0.75} <= set(sizes.loads) and min(sizes.loads) == 0.25 and sizes.beams and sizes.chained
