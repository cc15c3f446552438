"""Notebook 12: endpoints are compared in turns, prices come from both throughputs, and all is deleted."""

from types import SimpleNamespace

import pytest

from helpers.cloud.prices import Prices
from helpers.errors import CourseError
from helpers.notebook import cloud_requests
from helpers.notebook.cloud_sizes import CloudSizes
from helpers.serving.client import Told
from helpers.serving.load_test import Load, Sample
from helpers.text_to_sql.dataset import load_split

NOTEBOOK = "12_sagemaker"
SIZES = CloudSizes(2, 4, 3, 6, (1, 4), 4)


@pytest.fixture
def bench():
    examples = load_split("test", limit=4)
    cloud = SimpleNamespace(backend="local", runtime=None)
    prompts = [example.question for example in examples]
    own = dict(cloud=cloud, examples=examples, prompts=prompts, sizes=SIZES, instance_type="small")
    pair = ("fine_tuned", "medusa")
    return SimpleNamespace(**own, heads="medusa", compared=pair, named=lambda name: name.replace("_", "-"))


def test_endpoints_are_compared_in_turns(results, bench, monkeypatch, capsys):
    asked = []

    def invoke(runtime, endpoint, prompt, **more):
        asked.append((endpoint, prompt))
        text = "other" if endpoint.endswith("medusa") and prompt == bench.prompts[2] else "SELECT 1"
        return Told(text, ["SELECT", " 1"], [-0.1, -0.1], "stop")

    monkeypatch.setattr(cloud_requests.streams, "invoke", invoke)
    cloud_requests.compare_endpoints(results, bench)
    first = [endpoint for endpoint, _ in asked[2:]][::2]
    assert first == ["medusa", "fine-tuned", "medusa"]
    assert results.invariants["sagemaker.identical_outputs"] == {"holds": False, "count": 2, "of": 3}
    assert results.metrics["sagemaker.speedup"]["n"] == 3 and len(results.prompts) == 6
    assert "2 of 3 answers are the same" in capsys.readouterr().out


def test_prices_by_the_formula_and_by_the_clock(results, bench, monkeypatch, capsys):
    # A second until the first token, then a token every .1 s: the formula does not know of the second.
    def one(due):
        return Sample(due, tuple(due + 1.0 + 0.1 * k for k in range(4)), 200)

    loads = {users: Load([one(1.3 * k) for k in range(5) for _ in range(users)]) for users in SIZES.users}
    monkeypatch.setattr(cloud_requests, "over_concurrency", lambda bench, name: loads)
    found = cloud_requests.price_over_concurrency(results, bench, Prices("2026-09", {"small": 3.6}), 0.5)
    last = found["medusa"][-1]
    clock = 4 * 4 / 1.3
    assert last.rates == pytest.approx((40.0, clock))
    assert last.prices == pytest.approx((0.5 * 3.6 / (40 * 3600 / 1e6) / 4, 0.5 * 3.6 / (clock * 3600 / 1e6) / 4))
    assert results.metrics["sagemaker.formula_over_clock"]["value"] == pytest.approx(40 / clock)
    assert results.metrics["sagemaker.throughput_gain.users_4"]["value"] == pytest.approx(1.0)
    assert results.metrics["sagemaker.blended_price.baseline"]["kind"] == "simulated"
    cloud_requests.draw_prices(found)
    assert "small: $3.6/h (2026-09), 50% off" in capsys.readouterr().out


def test_all_at_once_is_no_throughput():
    with pytest.raises(CourseError, match="more requests than there are users"):
        cloud_requests.busy_throughput(Load([Sample(0.0, (1.0, 1.1), 200)] * 3))


def test_without_heads_there_is_nothing_to_compare(results, bench, capsys):
    bench.heads, bench.compared = None, ("fine_tuned",)
    cloud_requests.compare_endpoints(results, bench)
    assert "nothing to compare" in capsys.readouterr().out and not results.metrics
