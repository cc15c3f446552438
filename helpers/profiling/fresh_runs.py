"""The same comparison in several fresh processes: `python -m helpers.profiling.fresh_runs FOLDER` (07 and 08).

Two processes on one machine differ by 10 % and more: memory lies elsewhere, the kernels that were fastest are others.
An interval over prompts alone knows nothing of that. So each run is a process of its own, in which all arms take turns,
and `speedup_over_runs` draws from runs and prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from helpers import files
from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.measuring.timing import Comparison, Timed, interleave, speedup_over_runs
from helpers.profiling.arms import Answer, Arm, Bench


def fresh_runs(
    arms: Mapping[str, Arm],
    prompts: Sequence[Sequence[int]],
    *,
    model_id: str,
    dtype: str,
    warmup: Sequence[Sequence[int]] = (),
    runs: int = 3,
    max_new_tokens: int = 256,
    turns: int = 2,
    device: str = "cpu",
) -> Iterator[dict[str, Timed]]:
    """Answer the prompts (token ids) by all arms in `runs` processes, one after the other; yields each run's times, the
    results being `Answer`s.

    An arm may learn from answers that it gave before. So the prompts differ from each other and from those of the
    `warmup`: no arm has seen the answer that it is timed on. Each run begins with nothing learned but the warm-up's.
    `turns` are those of packed_linear.install.
    """
    asked = [tuple(prompt) for prompt in (*warmup, *prompts)]
    if len(set(asked)) < len(asked) or not arms or not prompts or runs < 1:
        raise CourseError("Fresh runs need arms and prompts, every prompt once, and others for the warm-up.")
    request = dict(
        arms={name: dict(arm) for name, arm in arms.items()},
        prompts=[list(prompt) for prompt in prompts],
        warmup=[list(prompt) for prompt in warmup],
        model_id=str(model_id),
        dtype=dtype,
        device=device,
        max_new_tokens=max_new_tokens,
        turns=turns,
        threads=torch.get_num_threads(),
    )
    folder = build_root() / "fresh_runs"
    for _ in range(runs):
        write_whole(folder / "request.json", json.dumps(request))
        (folder / "answer.json").unlink(missing_ok=True)
        yield _run(folder)


def _run(folder: Path) -> dict[str, Timed]:
    command = [sys.executable, "-m", "helpers.profiling.fresh_runs", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(files.ROOT), "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode or not (folder / "answer.json").exists():
        lines = process.stderr.strip().splitlines() or ["it left no message"]
        last = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        raise CourseError(f"The run of its own stopped with code {process.returncode}: {last}")
    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return {name: Timed(one["seconds"], [Answer(*each) for each in one["answers"]]) for name, one in answer.items()}


def alike(runs: Sequence[Mapping[str, Timed]], *arms: str) -> list[int]:
    """The prompts (their places) that all these arms answered with the same tokens, in every run."""
    given = [[answer.token_ids for answer in run[arm].results] for run in runs for arm in arms]
    return [place for place, (first, *others) in enumerate(zip(*given)) if all(other == first for other in others)]


def gain_over_runs(runs: Sequence[Mapping[str, Timed]], base: str, fast: str) -> Comparison:
    """How many times as fast one arm answers as another: over all runs, and over the prompts that both answered alike,
    so that it is the ratio of tokens per second, too. Where fewer than two are alike all prompts count."""
    places = alike(runs, base, fast)
    if len(places) < 2:
        places = range(len(runs[0][base].seconds))
    return speedup_over_runs(*([[run[arm].seconds[i] for i in places] for run in runs] for arm in (base, fast)))


def tokens_per_step(runs: Sequence[Mapping[str, Timed]], arm: str) -> float:
    """Tokens that a run of the model brought after the prefill, which brings one, too."""
    answers = [answer for run in runs for answer in run[arm].results]
    return sum(len(a.token_ids) - 1 for a in answers) / max(1, sum(a.num_steps for a in answers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where request.json is and answer.json goes")
    folder = parser.parse_args().folder
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    torch.set_num_threads(request["threads"])
    bench = Bench(**{name: request[name] for name in ("model_id", "dtype", "device", "max_new_tokens", "turns")})
    arms = {name: bench.answers(arm) for name, arm in request["arms"].items()}
    for prompt in request["warmup"]:
        for answer in arms.values():
            answer(prompt)
    timed = interleave(arms, request["prompts"], warmup=0, device=request["device"])
    document = {name: {"seconds": one.seconds, "answers": one.results} for name, one in timed.items()}
    write_whole(folder / "answer.json", json.dumps(document))


if __name__ == "__main__":
    main()
