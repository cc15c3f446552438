"""Processes start, answer, and end together, whatever happens to one of them."""

import os
import signal
import time

import psutil
import pytest
import torch

from helpers.errors import CourseError
from helpers.parallel import runs
from helpers.parallel.ranks import RankError, on_ranks
from tests.parallel import asked


@pytest.fixture(autouse=True)
def nobody_is_left():
    before, handlers = set(psutil.Process().children(recursive=True)), signal.getsignal(signal.SIGINT)
    yield
    assert set(psutil.Process().children(recursive=True)) <= before
    assert signal.getsignal(signal.SIGINT) is handlers  # a notebook's interrupt is still one


def test_what_ranks_return_and_print(capsys):
    assert on_ranks(runs.hello, 3) == [111, 111, 111]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" |")[0] for line in lines] == ["rank 0", "rank 1", "rank 2"]
    assert "of 3: the sum is 111" in lines[1]


def test_cores_are_shared_out():
    threads, processes = zip(*on_ranks(asked.number_of_threads, 2))
    assert set(threads) == {max(1, torch.get_num_threads() // 2)}
    assert len({*processes, os.getpid()}) == 3


def test_a_rank_that_is_killed_ends_all_and_is_named():
    with pytest.raises(RankError, match="Rank 1 of 2 stopped: signal SIGKILL ended it; too little memory"):
        on_ranks(runs.lose_one, 2, {"rank": 1})


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_s_own_error_is_told_and_not_that_of_those_who_waited(rank):
    message = rf"Rank {rank} of 2 stopped: ValueError: no sense in it\. The others were ended\."
    with pytest.raises(RankError, match=message):
        on_ranks(asked.complain, 2, {"rank": rank})


def test_the_time_is_bounded():
    began = time.monotonic()
    with pytest.raises(RankError, match="2 processes were not done after 6 s and were ended"):
        on_ranks(asked.sleep, 2, {"seconds": 600}, timeout=6)
    assert time.monotonic() - began < 30


def test_a_course_error_keeps_its_sentence():
    with pytest.raises(CourseError, match="must stand once among the members, which are"):
        on_ranks(runs.exchange, 2, dict(groups=[[0, 1, 1]], numbers=3, repeats=1))
