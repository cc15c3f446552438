"""What notebook 05 measures and draws, with a tiny model."""

from dataclasses import replace

import pytest

from helpers.engine import check
from helpers.engine.servers import Continuous, Occupancy
from helpers.engine.traffic import Replay, Request
from helpers.errors import CourseError
from helpers.measuring.timing import Comparison
from helpers.notebook import batching_bench, batching_charts, batching_engines, batching_speculation
from helpers.notebook.batching_bench import BatchingBench
from helpers.notebook.batching_sizes import BATCHING

NOTEBOOK = "05_continuous_batching"

SIZES = replace(BATCHING["smoke"], schedules=2)
TRACE = [Request(0.0, [5 + k, 17, 60], n) for k, n in enumerate((2, 9, 1, 4))]


@pytest.fixture(scope="module")
def bench():
    class Bench(BatchingBench):
        def requests(self, per_second=float("inf")):
            return [replace(each, arrival=k / per_second) for k, each in enumerate(TRACE)]

    return Bench(batching_bench.tiny_model(), None, "float64", "tiny", SIZES, 40, 8)


def test_the_largest_profile_tries_more_of_everything():
    cpu, full = BATCHING["cpu"], BATCHING["full"]
    assert full.requests > cpu.requests and full.runs > cpu.runs and full.schedules == 1000
    assert all(sizes.runs >= 2 for sizes in BATCHING.values())  # a comparison needs two
    assert all(1 in sizes.users for sizes in BATCHING.values())


def test_both_ways_do_the_same_work_and_are_written(results, bench, capsys):
    runs, servers = batching_bench.compare_batching(bench, bench.requests())
    assert {run.num_tokens for of_way in runs.values() for run in of_way} == {16}
    batching_bench.show_replays(results, runs, {"static": "in groups"})
    assert results.metrics["batching.tokens_per_second.continuous"]["n"] == SIZES.runs
    key = "batching.time_to_first_token.static.p99"
    assert results.metrics[key]["n"] == len(TRACE) * SIZES.runs
    gain = batching_bench.note_gain(results, "continuous_vs_static", runs["static"], runs["continuous"])
    assert results.metrics["batching.continuous_vs_static"]["value"] == gain.ratio
    out = capsys.readouterr().out
    assert "in groups" in out and max(map(len, out.splitlines())) <= 92
    batching_bench.show_memory(results, bench, servers["static"], servers["continuous"])
    assert "MB aside for" in capsys.readouterr().out
    waste = {name: batching_bench.waste_of(server) for name, server in servers.items()}
    assert results.metrics["batching.kv_waste.paged"]["value"] == waste["continuous"]
    assert 0 < waste["continuous"] < 1 and 0 < waste["static"] < 1
    batching_charts.draw_trace(bench.requests())
    batching_charts.draw_timeline({name: server.spans for name, server in servers.items()})
    steps = {name: server.occupancy for name, server in servers.items()}
    batching_charts.draw_memory(steps, batching_bench.bytes_per_token_of(bench))


def test_waste_is_what_is_set_aside_and_empty(bench):
    server = Continuous(bench.engine())
    server.occupancy = [Occupancy(1, 10, 16), Occupancy(2, 20, 32)]
    assert batching_bench.waste_of(server) == pytest.approx(1 - 30 / 48)


def test_a_place_is_taken_again_by_who_comes_later():
    spans = {0: (0, 3), 1: (0, 1), 2: (2, 5), 3: (4, 5)}
    assert batching_charts.slots_of(spans) == {0: 1, 1: 0, 2: 0, 3: 1}


def test_chunks_and_users(results, bench, capsys):
    at_once = [Replay([0.0], [[0.1]])]
    kept = batching_bench.compare_chunks(results, bench, at_once)
    assert list(kept) == ["whole prompts", "chunks oldest first", "chunks shared out"]
    assert {"batching.time_to_first_token_p99_ratio", "batching.between_tokens_p99_ratio"} <= set(results.metrics)
    batching_bench.show_replays(results, kept)
    batching_charts.draw_waiting(kept)
    found = batching_bench.by_users(results, bench)
    assert set(found) == set(SIZES.users) and "tokens/s together" in capsys.readouterr().out
    batching_charts.draw_users(found)


def test_identity_is_counted_and_a_difference_is_seen(results, bench, monkeypatch, capsys):
    tiny = batching_bench.tiny_model()
    batching_bench.check_identity(results, bench, tiny)
    invariant = results.invariants["batching.identical_outputs"]
    assert invariant["holds"] and invariant["of"] == SIZES.exact + SIZES.schedules
    monkeypatch.setattr(check, "same_as_alone", lambda model, seed, guessing: not guessing)
    batching_bench.check_identity(results, bench, tiny)
    assert not results.invariants["batching.identical_outputs"]["holds"]
    assert "1 of 2 random schedules" in capsys.readouterr().out


def test_where_guesses_stop_paying_is_named(capsys):
    def gain(low):
        return Comparison(low + 0.1, low, low + 0.2, 3)

    gains = {1: gain(1.4), 2: gain(1.1), 4: gain(0.9), 16: gain(0.7)}
    batching_speculation.read_crossing({4: gains, 2: {1: gain(0.5), 16: gain(0.5)}}, 1.3)
    out = capsys.readouterr().out
    assert "4 guesses pay with 1, 2 users at a time" in out and "2 guesses can't be shown to pay" in out
    assert "With 16 users and 4 guesses it is 0.80 times; you guessed 1.3" in out
    batching_charts.draw_gains({4: gains, 1: gains})


def test_other_engines_are_left_out_aloud(results, bench, capsys, monkeypatch):
    assert batching_engines.compare_engines(results, bench, bench.requests()) == {}
    assert "left out under this profile" in capsys.readouterr().out
    several = replace(bench, sizes=replace(SIZES, other_runs=2, other_requests=4, generate_requests=3, other_seats=2))
    monkeypatch.setattr(
        batching_engines, "settings_of", lambda bench: {"vllm": ("vllm", {}), "generate": ("generate", {})}
    )

    def elsewhere(kind, settings, traces, seats):
        if kind == "vllm":
            raise CourseError("it is not here.")
        return {
            name: Replay([0.0] * len(trace), [[9.0] * each.num_tokens for each in trace])
            for name, trace in traces.items()
        }

    monkeypatch.setattr(batching_engines, "replay_in_own_process", elsewhere)
    found = batching_engines.compare_engines(results, several, bench.requests())
    assert "vllm" not in found and [len(one.tokens) for one in found["generate"]] == [3, 3]
    assert results.metrics["batching.vs_hf_generate"]["value"] > 1 and "batching.vs_vllm" not in results.metrics
    assert "vLLM, compiled takes no part: it is not here." in capsys.readouterr().out


def test_shared_beginnings_are_read_once(results, bench, capsys):
    alike = [Request(0.0, [*range(5, 25), k], 2) for k in range(SIZES.seats + 2)]  # two come in when blocks are full
    batching_bench.compare_sharing(results, bench, alike)
    saved = results.metrics["batching.tokens_saved.shared_prefixes"]
    assert saved["n"] == len(alike) * (21 + 1) and saved["value"] == pytest.approx(2 * 16 / saved["n"])
    assert "saves" in capsys.readouterr().out
