"""A trace reaches every engine alike, and what is written down is what happened."""

import itertools
import random

import pytest

from helpers.engine.traffic import (
    Replay,
    Request,
    answer_lengths,
    percentiles,
    poisson,
    replay,
)
from helpers.errors import CourseError

TRACE = [Request(0.0, [1, 2], 2), Request(0.25, [3], 1), Request(9.0, [4], 3)]


class Clock:
    """Time that passes when somebody works or sleeps."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class OneByOne:
    """A token a second, of the first who waits."""

    def __init__(self, clock, lost=0):
        self.clock, self.queue, self.came, self.lost = clock, [], [], lost

    def submit(self, number, request):
        self.came.append((number, self.clock.now - 100))
        self.queue += [number] * (request.num_tokens - self.lost)

    @property
    def busy(self):
        return bool(self.queue)

    def step(self):
        self.clock.now += 1
        return {self.queue.pop(0): 1}


def test_requests_come_when_they_are_due_and_tokens_have_their_times():
    clock = Clock()
    server = OneByOne(clock)
    done = replay(server, TRACE, clock=clock, sleep=clock.sleep)
    assert server.came == [(0, 0.0), (1, 1.0), (2, 9.0)]  # the second came during a step
    assert done.tokens == [[1.0, 2.0], [3.0], [10.0, 11.0, 12.0]]
    assert (done.num_tokens, done.seconds, done.tokens_per_second) == (6, 12.0, 0.5)
    assert done.to_first_token == [1.0, 2.75, 1.0] and done.latencies == [2.0, 2.75, 3.0]
    assert done.between_tokens == [1.0, 1.0, 1.0]


def test_users_ask_when_they_have_their_answer():
    clock = Clock()
    server = OneByOne(clock)
    done = replay(server, TRACE, 2, clock=clock, sleep=clock.sleep)
    assert server.came == [(0, 0.0), (1, 0.0), (2, 2.0)] and done.arrivals == [0.0, 0.0, 2.0]
    assert done.tokens == [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]


def test_an_engine_that_does_other_work_is_refused():
    clock = Clock()
    with pytest.raises(CourseError, match="Request 0 got 1 tokens of 2"):
        replay(OneByOne(clock, lost=1), TRACE[:1], clock=clock, sleep=clock.sleep)


def test_arrivals_are_poisson_and_lengths_have_a_heavy_tail():
    times = poisson(4000, 5.0, random.Random(0))
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times[0] == 0 and min(gaps) >= 0 and sum(gaps) / len(gaps) == pytest.approx(0.2, rel=0.05)
    assert sum(gap > 0.2 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)  # e ** -1
    lengths = sorted(answer_lengths(4000, random.Random(0)))
    assert lengths[0] >= 1 and lengths[-1] == 256 and lengths[2000] == pytest.approx(24, abs=2)
    assert lengths[3960] > 8 * lengths[2000]


def test_percentiles():
    assert percentiles(range(101)) == (50.0, 90.0, 99.0)
    assert Replay([0.0], [[1.0, 3.0]]).between_tokens == [2.0]
