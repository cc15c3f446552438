"""llama.cpp's milliseconds become seconds a step."""

from pathlib import Path

import pytest

from helpers.errors import CourseError
from helpers.profiling import llama_cpp_steps
from helpers.profiling.llama_cpp_steps import LlamaCppSteps, time_llama_cpp
from helpers.profiling.own_process import Answers


@pytest.fixture
def asked(monkeypatch):
    asked = []

    def run(path, workloads, *, num_threads):
        asked.append((path.stem, num_threads, workloads["one"].max_new_tokens))
        answers = [[1] * 11, [1] * 6] if path.stem != "Q2_K" else [[1], [1]]
        milliseconds = {"predicted_ms": 150.0 if path.stem == "Q8_0" else 300.0, "prompt_ms": 500.0}
        return {"one": Answers(answers, [1.0, 1.0], milliseconds)}

    monkeypatch.setattr(llama_cpp_steps.llama_cpp_baseline, "run", run)
    monkeypatch.setattr(llama_cpp_steps, "weight_bytes", lambda path: len(path.stem))
    return asked


def test_steps_are_counted_without_the_prefill_s_token_and_files_take_turns(asked):
    paths = {kind: Path(f"{kind}.gguf") for kind in ("Q8_0", "Q4_1")}
    timed = time_llama_cpp(paths, [[1] * 30, [2] * 20], num_threads=2, max_new_tokens=12, runs=2)
    assert timed["Q8_0"] == LlamaCppSteps("Q8_0", 4, [0.01, 0.01], [100.0, 100.0])
    assert timed["Q4_1"].median() == 0.02 and timed["Q4_1"].tokens_per_second == 50.0
    assert asked == [(kind, 2, 12) for kind in ("Q8_0", "Q4_1", "Q4_1", "Q8_0")]


def test_answers_that_end_at_once_are_refused(asked):
    with pytest.raises(CourseError, match="ended all answers at once with Q2_K"):
        time_llama_cpp({"Q2_K": Path("Q2_K.gguf")}, [[1]], num_threads=1)
