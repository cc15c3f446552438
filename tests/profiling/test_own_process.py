"""Engines in processes of their own: what is asked arrives, what is answered comes back, a failure is a sentence."""

import pytest

from helpers.errors import CourseError
from helpers.profiling import llama_cpp_baseline
from helpers.profiling.own_process import Answers, Workload, ask, timed

ENGINE = """
from helpers.profiling.own_process import Request

class Doubles:
    calls = 0

    def __init__(self, by):
        self.by = by

    def answer(self, prompts, max_new_tokens):
        self.calls += 1
        return [[self.by * token for token in prompt][:max_new_tokens] for prompt in prompts]

    def counts(self):
        return {"calls": self.calls, "places": [self.calls, 2 * self.calls]}

request = Request.of_command_line("a test's engine")
if request.settings["by"] == 0:
    raise ValueError("nothing to multiply by")
engine = Doubles(request.settings["by"])
request.reply((key, key, engine) for key in request.workloads)
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A module that only this test has, on the path of the processes that it starts."""
    (tmp_path / "doubling_engine.py").write_text(ENGINE)
    monkeypatch.chdir(tmp_path)  # python -m looks here, too
    return "doubling_engine"


def test_what_is_asked_is_answered_in_order(engine):
    loads = {
        "one": Workload([[1], [2, 3], [4]], warmup=[[9]]),
        "two at a time": Workload([[1], [2, 3], [4]], batch_size=2, max_new_tokens=1),
    }
    answers = ask(engine, {"by": 2}, loads, name="It")
    assert answers["one"].token_ids == [[2], [4, 6], [8]] and len(answers["one"].seconds) == 3
    assert answers["two at a time"].token_ids == [[2], [4], [8]] and len(answers["two at a time"].seconds) == 2
    assert answers["one"].counts == {"calls": 3, "places": [3, 6]}  # without the warm-up's
    assert answers["two at a time"].counts == {"calls": 2, "places": [2, 4]}


def test_an_engine_that_stops_is_a_sentence(engine):
    with pytest.raises(CourseError, match="It stopped with code 1: ValueError: nothing to multiply by"):
        ask(engine, {"by": 0}, {"one": Workload([[1]])}, name="It")


def test_the_warm_up_is_off_the_clock():
    class Counting:
        asked = ()

        def answer(self, prompts, max_new_tokens):
            self.asked += (len(prompts),)
            return [[1]] * len(prompts)

        def counts(self):
            return {}

    engine = Counting()
    answers = timed(engine, Workload([[1]] * 5, batch_size=2, warmup=[[2]] * 2))
    assert engine.asked == (2, 2, 2, 1) and len(answers.seconds) == 3 and len(answers.token_ids) == 5


def test_sizes_and_speeds():
    load = Workload([[1, 2], [3]], max_new_tokens=5, warmup=[[1, 2, 3]])
    assert load.longest == 8
    assert Answers([[1, 2], [3, 4]], [0.5, 1.5]).tokens_per_second == 2.0


def test_without_llama_cpp_there_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(llama_cpp_baseline, "installed", lambda: False)
    with pytest.raises(CourseError, match=r"llama\.cpp is not installed here: `make setup`"):
        llama_cpp_baseline.run(tmp_path, {"one": Workload([[1]])}, num_threads=1)
