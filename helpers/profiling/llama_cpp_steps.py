"""llama.cpp's decode steps by its own clock, for files of several precisions (notebook 02)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from helpers.errors import CourseError
from helpers.models.to_gguf import weight_bytes
from helpers.profiling import llama_cpp_baseline
from helpers.profiling.own_process import Workload


@dataclass(frozen=True)
class LlamaCppSteps:
    """llama.cpp with one GGUF file, by its own clock: seconds of a decode step and prompt tokens a second, a figure a
    run; and the bytes of weights that a step reads."""

    kind: str
    weight_bytes: int
    seconds: list[float]
    prefill_rate: list[float]

    def median(self) -> float:
        """Seconds of a step."""
        return median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        return 1 / self.median()


def time_llama_cpp(
    paths: Mapping[str, Path],
    prompts: Sequence[Sequence[int]],
    *,
    num_threads: int,
    max_new_tokens: int = 64,
    warmup: Sequence[Sequence[int]] = (),
    runs: int = 3,
) -> dict[str, LlamaCppSteps]:
    """Greedy answers by each file (`opponents.written_files` writes them), in a process of its own, the files taking
    turns in so many runs.

    CourseError where llama.cpp isn't installed, or a file gives no second token to anything.
    """
    load = Workload(prompts, max_new_tokens=max_new_tokens, warmup=warmup)
    seconds: dict[str, list[float]] = {kind: [] for kind in paths}
    rates: dict[str, list[float]] = {kind: [] for kind in paths}
    kinds = list(paths)
    for _ in range(runs):
        for kind in kinds:
            answers = llama_cpp_baseline.run(paths[kind], {"one": load}, num_threads=num_threads)["one"]
            num_steps = sum(len(answer) - 1 for answer in answers.token_ids)  # the first token is the prefill's
            if num_steps < 1:
                raise CourseError(f"llama.cpp ended all answers at once with {kind}: give it prompts as chat has them.")
            seconds[kind].append(answers.counts["predicted_ms"] / 1e3 / num_steps)
            rates[kind].append(sum(map(len, prompts)) / answers.counts["prompt_ms"] * 1e3)
        kinds.reverse()
    return {kind: LlamaCppSteps(kind, weight_bytes(path), seconds[kind], rates[kind]) for kind, path in paths.items()}
