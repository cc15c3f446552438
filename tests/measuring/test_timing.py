"""Measurements that don't fool: turns, intervals, and no verdict where there is none."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.errors import CourseError
from helpers.measuring import memory, probes
from helpers.measuring.latency import latency
from helpers.measuring.memory import weight_bytes
from helpers.measuring.timing import interleave, seconds_of, speedup


def test_arms_take_turns_in_reversing_order():
    calls = []
    arms = {name: (lambda item, name=name: calls.append((name, item)) or f"{name}{item}") for name in "ab"}
    timed = interleave(arms, [1, 2], rounds=2, warmup=0)
    assert calls == [("a", 1), ("b", 1), ("b", 1), ("a", 1), ("a", 2), ("b", 2), ("b", 2), ("a", 2)]
    assert timed["a"].results == ["a1", "a2"] and len(timed["b"].seconds) == 2


def test_the_fastest_round_counts():
    naps = iter([0.0, 0.03, 0.001])
    timed = interleave({"a": lambda item: time.sleep(next(naps))}, [1], rounds=2, warmup=1)
    assert 0.001 <= timed["a"].seconds[0] < 0.02


def test_a_real_difference_is_called_real_and_a_false_one_is_not():
    rng = np.random.default_rng(0)
    work = rng.uniform(1, 3, 60)
    twice = speedup(2 * work * rng.normal(1, 0.05, 60), work * rng.normal(1, 0.05, 60))
    assert twice.real and twice.low < 2.0 < twice.high and twice.n == 60 and "faster" in str(twice)
    same = speedup(work * rng.normal(1, 0.2, 60), work * rng.normal(1, 0.2, 60))
    assert not same.real and "no difference shown" in str(same)
    assert "slower" in str(speedup([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]))


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered, widths = 0, []
    for i in range(100):
        work = rng.uniform(1, 3, 40)
        found = speedup(1.5 * work * rng.normal(1, 0.1, 40), work * rng.normal(1, 0.1, 40), resamples=400, seed=i)
        covered += found.low <= 1.5 <= found.high
        widths.append(found.high - found.low)
    assert covered >= 85 and np.median(widths) < 0.2


def test_medians_of_rounds_ignore_a_hiccup():
    found = speedup([2.0, 2.1, 2.0, 2.0, 50.0], [1.0, 1.0, 1.0, 1.05, 1.0], of=np.median)
    assert found.ratio == pytest.approx(2.0)


@pytest.mark.parametrize("sides", [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_too_little_or_unlike_is_refused(sides):
    with pytest.raises(CourseError, match="two at least"):
        speedup(*sides)
    with pytest.raises(CourseError, match="one item"):
        interleave({"a": print}, [])


def test_the_machine_s_limits_are_positive_and_of_their_order():
    assert 1e8 < probes.bandwidth(megabytes=16, repeats=3) < 1e13
    assert 1e8 < probes.matmul_rate(size=128, repeats=3) < 1e15
    assert seconds_of(lambda: time.sleep(0.002), repeats=3, warmup=0) >= 0.002


def test_shared_weights_count_once():
    model = torch.nn.ModuleList([torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)])
    assert weight_bytes(model) == 128
    model[1].weight = model[0].weight
    assert weight_bytes(model.half()) == 32


def completion(*steps):
    made = [SimpleNamespace(seconds=s, emitted=(0,) * n) for s, n in steps]
    ids = [0] * sum(n for _, n in steps)
    total = sum(s for s, _ in steps)
    return SimpleNamespace(steps=made, token_ids=ids, seconds=total, seconds_to_first_token=steps[0][0])


def test_latency_is_what_a_user_of_the_stream_feels():
    found = latency([completion((0.1, 1), (0.02, 1), (0.03, 1)), completion((0.2, 1), (0.04, 2))])
    assert found.ttft_ms == pytest.approx(150) and found.n == 2
    assert found.itl_mean_ms == pytest.approx((20 + 30 + 40 + 0) / 4)
    assert found.itl_p50_ms == pytest.approx(25) and found.itl_p99_ms <= 40
    assert found.tokens_per_second == pytest.approx(6 / 0.39)
    with pytest.raises(CourseError, match="second token"):
        latency([completion((0.1, 1))])


def test_memory_is_reported():
    assert 0.05 < memory.peak_memory()["process"] < 100
