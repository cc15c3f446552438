"""Measurements that don't fool: turns, intervals, and no verdict where there is none."""

import weakref

import numpy as np
import pytest

from helpers.errors import CourseError
from helpers.measuring import timing
from helpers.measuring.timing import interleave, seconds_of, speedup, speedup_over_runs, take_turns


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until `clock(3.0)` lets three seconds pass."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_the_order_reverses_each_round_and_the_warm_up_does_not_count(clock):
    calls = []
    durations = iter([100, 200, 300, 400, 1, 2, 3, 4])

    def arm(name):
        calls.append(name)
        clock(next(durations))

    seconds = take_turns({name: lambda name=name: arm(name) for name in "ab"}, 2, warmup=2)
    assert "".join(calls) == "abbaabba"
    assert seconds == {"a": [1, 4], "b": [2, 3]}


def test_the_order_can_stay():
    calls = []
    take_turns({name: lambda name=name: calls.append(name) for name in "abc"}, 2, warmup=1, reverse=False)
    assert "".join(calls) == "abcabcabc"


def test_what_runs_before_and_after_is_off_the_clock_and_after_gets_the_result(clock):
    events = []

    def step(name):
        events.append(f"step {name}")
        clock(1)
        return name.upper()

    seconds = take_turns(
        {name: lambda name=name: step(name) for name in "ab"},
        1,
        warmup=1,
        before=lambda name: (events.append(f"before {name}"), clock(10)),
        after=lambda name, result: (events.append(f"after {name} {result}"), clock(100)),
    )
    once = ["before a,step a,after a A", "before b,step b,after b B"]
    assert ",".join(events) == ",".join([*once, *reversed(once)])
    assert seconds == {"a": [1], "b": [1]}


def test_a_result_is_gone_before_the_next_call():
    """Two results at once would be twice the memory of one."""
    references = []

    def call():
        assert all(reference() is None for reference in references)
        result = np.ones(3)
        references.append(weakref.ref(result))
        return result

    take_turns({"it": call}, 3)
    assert len(references) == 3


def test_device_work_is_awaited_at_both_ends(monkeypatch):
    events = []
    monkeypatch.setattr(timing, "synchronize", lambda device: events.append(f"wait for {device}"))
    take_turns({"it": lambda: events.append("call")}, 1, device="cuda:0", before=lambda arm: events.append("before"))
    assert events == ["before", "wait for cuda:0", "call", "wait for cuda:0"]


def test_arms_take_turns_in_reversing_order():
    calls = []
    arms = {name: (lambda item, name=name: calls.append((name, item)) or f"{name}{item}") for name in "ab"}
    timed = interleave(arms, [1, 2], rounds=2, warmup=0)
    assert calls == [("a", 1), ("b", 1), ("b", 1), ("a", 1), ("a", 2), ("b", 2), ("b", 2), ("a", 2)]
    assert timed["a"].results == ["a1", "a2"] and len(timed["b"].seconds) == 2


def test_the_fastest_round_of_each_item_counts(clock):
    durations = iter([0.5, 3, 1, 7, 9])
    timed = interleave({"a": lambda item: clock(next(durations))}, [1, 2], rounds=2, warmup=1)
    assert timed["a"].seconds == [1, 7]


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
        comparison = speedup(1.5 * work * rng.normal(1, 0.1, 40), work * rng.normal(1, 0.1, 40), resamples=400, seed=i)
        covered += comparison.low <= 1.5 <= comparison.high
        widths.append(comparison.high - comparison.low)
    assert covered >= 85 and np.median(widths) < 0.2


def test_medians_of_rounds_ignore_a_hiccup():
    comparison = speedup([2.0, 2.1, 2.0, 2.0, 50.0], [1.0, 1.0, 1.0, 1.05, 1.0], of=np.median)
    assert comparison.ratio == pytest.approx(2.0)


@pytest.mark.parametrize("sides", [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_too_little_or_unlike_is_refused(sides):
    with pytest.raises(CourseError, match="two at least"):
        speedup(*sides)
    with pytest.raises(CourseError, match="one item"):
        interleave({"a": print}, [])
    for arms, rounds in (({}, 1), ({"a": print}, 0)):
        with pytest.raises(CourseError, match="one arm and one round"):
            take_turns(arms, rounds)


def test_seconds_of_is_a_median(clock):
    durations = iter([50, 1, 2, 90])
    assert seconds_of(lambda: clock(next(durations)), repeats=3, warmup=1) == 2


def several_runs(rng, drift, runs=3, items=30, factor=1.5):
    """Seconds (runs, items) of two sides; each run has a ratio of its own, `drift` around the factor."""
    work = rng.uniform(1, 3, items)
    ratios = factor * rng.normal(1, drift, runs)
    base = [ratio * work * rng.normal(1, 0.05, items) for ratio in ratios]
    return base, [work * rng.normal(1, 0.05, items) for _ in ratios], ratios


def test_an_interval_over_runs_covers_every_run_where_one_over_items_does_not():
    base, fast, _ = several_runs(np.random.default_rng(0), drift=0.1)
    over_runs = speedup_over_runs(base, fast)
    own = [speedup(*pair) for pair in zip(base, fast)]
    assert all(over_runs.low <= one.ratio <= over_runs.high for one in own)
    assert not all(own[0].low <= one.ratio <= own[0].high for one in own)  # the mistake that this mends
    assert over_runs.ratio == pytest.approx(np.sum(base) / np.sum(fast))
    assert (over_runs.n, over_runs.runs) == (30, 3) and "n = 30, 3 runs" in str(over_runs)


def test_an_interval_over_runs_covers_the_truth_more_often_than_one_over_items():
    rng, covered, by_items = np.random.default_rng(2), 0, 0
    for _ in range(60):
        base, fast, _ = several_runs(rng, drift=0.06)
        over_runs = speedup_over_runs(base, fast, resamples=300)
        pooled = speedup(np.concatenate(base), np.concatenate(fast), resamples=300)
        covered += over_runs.low <= 1.5 <= over_runs.high
        by_items += pooled.low <= 1.5 <= pooled.high
    assert covered >= 42 and covered > by_items + 10


def test_runs_without_drift_give_nearly_the_interval_over_items():
    base, fast, _ = several_runs(np.random.default_rng(3), drift=0.0)
    over_runs, one = speedup_over_runs(base, fast), speedup(base[0], fast[0])
    assert over_runs.high - over_runs.low < 2 * (one.high - one.low)


def test_one_run_is_compared_as_before():
    base, fast, _ = several_runs(np.random.default_rng(4), drift=0.0, runs=1)
    assert speedup_over_runs(base, fast) == speedup(base[0], fast[0])


@pytest.mark.parametrize(
    ("base", "fast"),
    [
        ([], []),
        ([[1, 2]], [[1, 2], [1, 2]]),
        ([[1, 2], [1]], [[1, 2], [1]]),
        ([[1, 2]], [[1, 2, 3]]),
        ([[1], [1]],) * 2,
    ],
)
def test_runs_over_different_items_are_refused(base, fast):
    with pytest.raises(CourseError):
        speedup_over_runs(base, fast)
