"""What notebooks 06 and 06b write and draw is made from what ranks return; a difference is seen."""

import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest

from helpers.errors import CourseError
from helpers.models import shape_only
from helpers.notebook import parallel_bench, parallel_charts, parallel_collectives
from helpers.notebook.parallel_bench import Found, ParallelBench
from helpers.notebook.parallel_sizes import PARALLEL
from helpers.parallel.layouts import Device, Served
from helpers.parallel.links import Link
from helpers.parallel.runs import Which

NOTEBOOK = "06_fsdp_tensor_parallel"

SIZES = PARALLEL["smoke"]


@pytest.fixture
def bench():
    return ParallelBench(Which("tiny"), None, [[1, 2]], SIZES, SimpleNamespace(seed=0, profile="smoke", device="cpu"))


def answer(worst=1e-6, same=2, gathered=0, local=50):
    row = dict(worst=worst, same=same, of=2, local_bytes=local, gathered_bytes=gathered, whole_bytes=100)
    return row | dict(calls={"all_reduce": 5}, bytes={"all_reduce": 2000})


def fake(monkeypatch, module, *answers):
    """Ranks that answer these, one call after the other, again and again."""
    asked = []

    def on_ranks(function, ranks, arguments=None, **options):
        asked.append((function.__name__, ranks, arguments))
        return answers[(len(asked) - 1) % len(answers)]

    monkeypatch.setattr(module, "on_ranks", on_ranks)
    return asked


def test_the_worst_rank_counts():
    found = Found("fsdp", 2, [answer(1e-6, 2, 10, 40), answer(2e-6, 1, 30, 50)])
    assert (found.worst, found.same, found.of, found.memory_share, found.holds) == (2e-6, 1, 2, 0.8, False)
    assert Found("fsdp", 2, [answer()]).holds and not Found("fsdp", 2, [answer(2e-3)]).holds


def test_cuts_are_compared_on_all_ranks_and_a_difference_breaks_the_invariant(results, bench, monkeypatch, capsys):
    asked = fake(monkeypatch, parallel_bench, [answer()])
    cuts = parallel_bench.compare_cuts(results, bench)
    assert [ranks for _, ranks, _ in asked] == list(SIZES.ranks) == list(cuts)
    assert results.invariants["parallel.tensor_parallel_equals_dense"] == {"holds": True, "count": 4, "of": 4}
    assert results.metrics["parallel.memory_per_rank.tensor_parallel"]["value"] == 0.5
    assert "2 of 2" in capsys.readouterr().out
    fake(monkeypatch, parallel_bench, [answer()], [answer(same=1)])
    parallel_bench.compare_cuts(results, bench)
    assert not results.invariants["parallel.tensor_parallel_equals_dense"]["holds"]


def test_fsdp_s_memory_is_that_of_the_better_way(results, bench, monkeypatch):
    fake(monkeypatch, parallel_bench, [answer(gathered=30)], [answer(gathered=5)])
    parallel_bench.compare_fsdp(results, bench)
    assert results.metrics["parallel.memory_per_rank.fsdp"]["value"] == 0.55
    assert results.invariants["parallel.fsdp_equals_dense"]["holds"]


def test_what_a_library_refuses_is_told(results, bench, monkeypatch, capsys):
    def refuse(way, ranks):
        raise CourseError("2 ranks don't divide 9 heads.")

    monkeypatch.setattr(ParallelBench, "compare", lambda self, way, ranks: refuse(way, ranks))
    parallel_bench.compare_library(results, bench)
    out = capsys.readouterr().out
    assert "DTensor, 2 ranks: 2 ranks don't divide 9 heads." in out and "vLLM is left out" in out


def test_steps_messages_and_what_they_explain(results, bench, monkeypatch, capsys):
    times = {"whole": [1.0, 1.1, 1.0], "tensor_parallel": [2.0, 2.0, 2.2], "fsdp": [4.0, 4.0, 4.4]}
    slower = {way: [1.5 * each for each in of_way] for way, of_way in times.items()}
    fake(monkeypatch, parallel_bench, [times, slower])
    seconds = parallel_bench.time_steps(results, bench)
    assert seconds["whole"] == slower["whole"]  # the last rank's
    assert results.metrics["parallel.step_speedup.fsdp"]["value"] == pytest.approx(0.25)
    parallel_charts.draw_steps(seconds, parallel_bench.WORDS, "a shape")
    link = Link(1e-4, 1e9)
    measured = {str(size): link.all_reduce(size, 2) for size in (256, 65_536, 2**22)}
    fake(monkeypatch, parallel_bench, [measured, measured])
    found, points = parallel_bench.fit_messages(results, bench)
    assert found.latency == pytest.approx(1e-4, rel=1e-3) and found.bandwidth == pytest.approx(1e9, rel=1e-3)
    parallel_charts.draw_messages(points, found)
    parallel_bench.explain_step(results, bench, found, seconds)
    assert results.metrics["parallel.talking_share.predicted"]["kind"] == "predicted"
    assert "all-reduces of" in capsys.readouterr().out


def test_bytes_are_predicted_before_they_are_counted(results, bench, monkeypatch, capsys):
    monkeypatch.setattr(Which, "open", lambda self: shape_only("llama-tiny"))  # 2 layers, hidden 64, vocabulary 97
    parallel_bench.predict_bytes(results, bench)
    predicted = {
        name: results.metrics[f"parallel.bytes_per_token.{name}.predicted"] for name in ("tensor_parallel", "fsdp")
    }
    assert predicted["tensor_parallel"]["value"] == 4 * (5 * 64 + 98)
    parallel_bench.compare_bytes(results, Found("tensor_parallel", 2, [answer()]), Found("fsdp", 2, [answer()]))
    assert results.metrics["parallel.bytes_per_token.fsdp"]["value"] == 2000
    assert "counted    2.0 kB in 5 all-reduces" in capsys.readouterr().out


def test_training_is_told_by_its_losses_and_differences(results, bench, monkeypatch, capsys):
    row = dict(alone=[2.0, 1.0], sharded=[2.0, 1.0], worst=1e-7, bytes={"all_gather": 4_000_000}, calls={})
    fake(monkeypatch, parallel_bench, [row, row | {"worst": 3e-7}])
    parallel_bench.compare_training(results, bench)
    assert results.metrics["parallel.fsdp_training_difference"]["value"] == 3e-7
    assert "2.0000 2.0000, 1.0000 1.0000" in capsys.readouterr().out


def test_the_simulation_is_called_so(capsys):
    gpu = Device(80e9, 3e12, 1e15, 8, Link(1e-6, 4e11), Link(5e-6, 5e10))
    found = parallel_charts.simulate(Served(70e9, 80, 8192, 64, 8, 2, 327_680), gpu, (1, 8, 64), 2000, 0.05)
    parallel_charts.draw_simulation(found, "70 billion")
    for ax in plt.gcf().axes:  # the course's style puts titles to the left
        assert "simulated" in ax.get_title() + ax.get_title("left")
    parallel_charts.read_simulation(found)
    head, one, *others = capsys.readouterr().out.splitlines()
    assert head.startswith("simulated") and "it doesn't fit" in one and max(map(len, (head, one, *others))) <= 92
    assert all("tensor in a node" in line or "tensor" in line for line in others)
    parallel_charts.draw_heads(9, 3, (2, 3, 4))


def test_rings_are_counted_and_a_difference_is_seen(results, monkeypatch, capsys):
    row = dict(same=20, of=20, shares={"all_reduce": 1.0, "all_to_all": 0.5})
    fake(monkeypatch, parallel_collectives, [row, row])
    parallel_collectives.compare_rings(results, SIZES, 3.0)
    assert results.invariants["parallel.rings_equal_torch"] == {"holds": True, "count": 80, "of": 80}
    assert results.metrics["collectives.sent_share.all_to_all.ranks_2"]["value"] == 0.5
    fake(monkeypatch, parallel_collectives, [row, row | {"same": 19}])
    parallel_collectives.compare_rings(results, SIZES, 3.0)
    assert not results.invariants["parallel.rings_equal_torch"]["holds"]
    fake(monkeypatch, parallel_collectives, [dict(bytes=36_000, seconds=0.002)], [dict(bytes=24_000, seconds=0.001)])
    parallel_collectives.compare_groups(results, SIZES)
    out = capsys.readouterr().out
    assert "among 4 of 4: a rank sends 36 kB in 3 messages, 2.0 ms" in out and "67%" in out


def test_a_ring_of_small_numbers_ends_with_the_sums(capsys):
    parallel_collectives.show_ring([[1, 2, 3], [10, 20, 30], [100, 200, 300]])
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.findall(r"chunk (\d): (\d+)", last) == [("0", "111"), ("1", "222"), ("2", "333")]
