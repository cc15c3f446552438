"""The course's own arms as engines that take workloads: `python -m helpers.profiling.course_baseline` (notebook 08b).

fresh_runs.py times single requests, all arms in turns. Here are batches and long prompts, asked as other engines are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from helpers.decoding.in_batches import answers_in_batches
from helpers.errors import CourseError
from helpers.kernels.compiled import CompiledGreedy
from helpers.profiling.arms import Answer, Arm, Bench
from helpers.profiling.own_process import Answers, Request, Workload, ask

MODULE = "helpers.profiling.course_baseline"
SEPARATOR = " / "  # of an arm's name and a workload's


def compiled_arm(capacity: int) -> Arm:
    """The library's step compiled by torch.compile, with a cache of so many places: prompt and answer."""
    return {"make": f"{MODULE}:compiled", "capacity": capacity}


def compiled(bench: Bench, capacity: int):
    """Makes that arm."""
    greedy = CompiledGreedy(bench.model, capacity)
    return lambda ids: Answer(greedy(ids, bench.max_new_tokens))


class CourseEngine:
    """One arm of a bench: a prompt by itself as everywhere, several of them in one run of the model a step."""

    def __init__(self, bench: Bench, arm: Arm):
        self.bench, self.made, self.one = bench, bench.made(arm), bench.answers(arm)

    def answer(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        if len(prompts) == 1:
            return [self.one(prompts[0]).token_ids]
        if callable(self.made):
            raise CourseError("This arm answers one prompt at a time: give it a batch size of 1.")
        options = dict(max_new_tokens=max_new_tokens, batch_size=len(prompts))
        return answers_in_batches(self.bench.fast, prompts, self.made, **options)

    def counts(self) -> dict:
        return {}


def run(
    arms: Mapping[str, Arm],
    workloads: Mapping[str, Workload],
    *,
    model_id: str,
    dtype: str,
    device: str = "cpu",
    turns: int = 2,
    num_threads: int = 1,
) -> dict[tuple[str, str], Answers]:
    """Answer every workload by every arm, in a process of its own; the keys are (arm, workload)."""
    settings = dict(model_id=model_id, dtype=dtype, device=device, turns=turns, num_threads=num_threads)
    settings["arms"] = {name: dict(arm) for name, arm in arms.items()}
    answers = ask(MODULE, settings, workloads, name="The course's own engine")
    return {tuple(key.split(SEPARATOR)): answer for key, answer in answers.items()}


def engines(request: Request) -> Iterator[tuple[str, str, CourseEngine]]:
    """(name of the answers, workload, engine) for each workload and arm; an arm is made anew for each workload, so that
    it has learned nothing."""
    settings = request.settings
    longest = max(load.max_new_tokens for load in request.workloads.values())
    options = {name: settings[name] for name in ("model_id", "dtype", "device", "turns")}
    bench = Bench(**options, max_new_tokens=longest)
    for key in request.workloads:
        for name, arm in settings["arms"].items():
            yield f"{name}{SEPARATOR}{key}", key, CourseEngine(bench, arm)


def main() -> None:
    request = Request.of_command_line(__doc__.splitlines()[0])
    torch.set_num_threads(request.settings["num_threads"])
    request.reply(engines(request))


if __name__ == "__main__":
    main()
