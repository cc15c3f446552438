"""A team that was given back comes again, and computes the same."""

import threading

import psutil
import torch

from helpers.kernels.openmp_team import _pause, release_team


def threads_after(work):
    work()
    return psutil.Process().num_threads()


def test_threads_end_and_come_back():
    before, x = torch.get_num_threads(), torch.randn(512, 512)
    torch.set_num_threads(4)
    try:
        release_team()
        none = psutil.Process().num_threads()
        first = x @ x
        with_team = threads_after(lambda: torch.nn.functional.softmax(torch.randn(2000, 2000), -1))
        release_team()
        if _pause() is not None:
            assert with_team > none and psutil.Process().num_threads() < with_team
        assert torch.equal(x @ x, first)
    finally:
        torch.set_num_threads(before)


def test_it_does_nothing_in_a_thread_that_never_computed():
    thread = threading.Thread(target=release_team)
    thread.start()
    thread.join()
