"""Processes start, answer, and end together, whatever happens to one of them."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch

from helpers.errors import CourseError
from helpers.files import ROOT
from helpers.parallel import runs
from helpers.parallel.ranks import RankError, on_ranks
from tests.parallel import asked


@pytest.fixture(autouse=True, scope="module")
def fork_server():
    on_ranks(runs.hello, 1, show=False)  # which starts it


@pytest.fixture(autouse=True)
def nobody_is_left(fork_server):
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before


def test_what_ranks_return_and_print(capsys):
    assert on_ranks(runs.hello, 3) == [111, 111, 111]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" |")[0] for line in lines] == ["rank 0", "rank 1", "rank 2"]
    assert "one of 3: the sum is 111" in lines[1]


def test_cores_are_shared_out():
    threads, processes = zip(*on_ranks(asked.number_of_threads, 2))
    assert set(threads) == {max(1, torch.get_num_threads() // 2)}
    assert len({*processes, os.getpid()}) == 3


def test_the_environment_is_the_starter_s(monkeypatch):
    monkeypatch.setenv("COURSE_OF_A_TEST", "a")
    assert on_ranks(asked.environment, 1, {"name": "COURSE_OF_A_TEST"}) == ["a"]
    monkeypatch.delenv("COURSE_OF_A_TEST")
    assert on_ranks(asked.environment, 1, {"name": "COURSE_OF_A_TEST"}) == [None]


def test_a_rank_that_is_killed_ends_all_and_is_named():
    with pytest.raises(RankError, match="Rank 1 of 2 stopped: signal SIGKILL ended it; too little memory"):
        on_ranks(runs.lose_one, 2, {"rank": 1})


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_s_own_error_is_told_and_not_that_of_those_who_waited(rank):
    message = rf"Rank {rank} of 2 stopped: ValueError: no sense in it\. The others were ended\."
    with pytest.raises(RankError, match=message):
        on_ranks(asked.complain, 2, {"rank": rank})


def test_an_interrupt_ends_all():
    """As by the square in a notebook's toolbar."""
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        on_ranks(asked.sleep, 2, {"seconds": 600})


def test_whoever_starts_them_is_killed_and_they_end():
    code = "from helpers.parallel.ranks import on_ranks\nfrom tests.parallel import asked\n"
    code += "if __name__ == '__main__': on_ranks(asked.sleep, 2, {'seconds': 600})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    starter, end = psutil.Process(process.pid), time.monotonic() + 60
    while len(family := starter.children(recursive=True)) < 4:  # the fork server, its tracker, two ranks
        assert time.monotonic() < end
        time.sleep(0.1)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def test_the_time_is_bounded():
    began = time.monotonic()
    with pytest.raises(RankError, match="2 processes were not done after 6 s and were ended"):
        on_ranks(asked.sleep, 2, {"seconds": 600}, timeout=6)
    assert time.monotonic() - began < 30


def test_a_course_error_keeps_its_sentence():
    with pytest.raises(CourseError, match="must stand once among the members, which are"):
        on_ranks(runs.exchange, 2, dict(groups=[[0, 1, 1]], numbers=3, repeats=1))
