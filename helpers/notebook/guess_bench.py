"""What notebook 07 measures: answers recorded and priced, what validation chooses, fresh processes, identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from helpers import models
from helpers.decoding.completion import Completion
from helpers.decoding.generate import steps
from helpers.decoding.in_batches import answers_in_batches
from helpers.measuring.timing import Timed, interleave
from helpers.notebook.guess_sizes import COMBINED, GREEDY, TRAINED, GuessSizes, combinations
from helpers.notebook.lesson import Lesson
from helpers.notebook.results import Results
from helpers.profiling.arms import Arm, Bench
from helpers.profiling.breakdown import Clocked
from helpers.profiling.fresh_runs import fresh_runs
from helpers.speculation.cost import accepted_per_step, replayed_seconds
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for
from helpers.training.launch import launch

HF = {"hf_assisted": TRAINED, "hf_prompt_lookup": "prompt_lookup"}  # and which of ours each is compared with
SCRIPT = "helpers.training.distil_draft"


def prompts_of(bench: Bench, split: str, limit: int, start: int = 0) -> list[list[int]]:
    """Prompts of a split, as token ids."""
    examples = load_split(split, limit=start + limit)[start:]
    return [bench.ids(prompt_for(bench.tokenizer, example)) for example in examples]


@dataclass
class Recorded:
    """An arm's answers with their steps, and the seconds of guessing in all of them."""

    arm: Arm
    answers: list[Completion]
    guess_seconds: float = 0.0

    @property
    def tokens_per_step(self) -> float:
        return accepted_per_step(self.answers)


def record(bench: Bench, arm: Arm, prompts: Sequence[Sequence[int]]) -> Recorded:
    """Answer the prompts, in order, and keep what happened."""
    made = bench.made(arm)
    clock = Clocked(made) if made else None
    options = dict(max_new_tokens=bench.max_new_tokens, proposer=clock)
    answers = [Completion(len(ids), steps=list(steps(bench.fast, ids, **options))) for ids in prompts]
    spent = sum(seconds for _, seconds in (*clock.first, *clock.later)) if clock else 0.0
    return Recorded(arm, answers, spent)


@dataclass
class Choice:
    """What validation chose: an arm for each guesser, the best of the combinations, and the predicted speedup of whole
    requests for all of them; `combination` says in words which one is the best."""

    arms: dict[str, Arm] = field(default_factory=dict)
    predicted: dict[str, float] = field(default_factory=dict)
    recorded: dict[str, Recorded] = field(default_factory=dict)
    combination: str = ""

    @property
    def best(self) -> str:
        """The guesser with the least predicted time."""
        return max(self.predicted, key=self.predicted.get)


def choose(
    bench: Bench,
    tried: Mapping[str, Sequence[Arm]],
    prompts: Sequence[Sequence[int]],
    step_seconds: Callable[[int], float],
    say: Callable[[str, Recorded, float], None] = lambda name, recorded, gain: None,
) -> Choice:
    """Record every candidate on validation prompts, price its steps, and keep the best of each guesser; then combine.

    `say(name, recorded, predicted speedup)` is called for each.
    """
    plain = record(bench, dict(make=GREEDY), prompts)
    prefill = mean(answer.steps[0].seconds for answer in plain.answers)
    base = replayed_seconds(plain.answers, step_seconds, prefill)
    choice = Choice()

    def consider(name: str, label: str, arm: Arm) -> bool:
        recorded = record(bench, arm, prompts)
        gain = base / replayed_seconds(recorded.answers, step_seconds, prefill, recorded.guess_seconds)
        say(label, recorded, gain)
        better = gain > choice.predicted.get(name, 0.0)
        if better:
            choice.arms[name], choice.predicted[name], choice.recorded[name] = arm, gain, recorded
        return better

    for name, arms in tried.items():
        for arm in arms:
            consider(name, name, arm)
    for label, arm in combinations(choice.arms).items():
        if consider(COMBINED, label, arm):
            choice.combination = label
    return choice


def best_of_transformers(
    bench: Bench, draft: str, prompts: Sequence[Sequence[int]], tried: int | None = None
) -> tuple[dict[str, Arm], dict[str, Timed]]:
    """transformers' best settings on these prompts, timed in turns: (the best arm of each kind, all times)."""
    settings = [(3, 0.0), (5, 0.4), (20, 0.4)][:tried]  # the last are its own defaults
    arms: dict[str, Arm] = {}
    for n, p in settings:
        arms[f"hf_assisted {n}, {p}"] = dict(make="hf_assisted", draft=draft, num_tokens=n, min_probability=p)
    arms |= {f"hf_prompt_lookup {n}": dict(make="hf_prompt_lookup", num_tokens=n) for n in (3, 5, 10)[:tried]}
    answers = {name: bench.answers(arm) for name, arm in arms.items()}
    timed = interleave(answers, prompts, warmup=min(1, len(prompts)), device=bench.device)
    fastest = {
        kind: min((name for name in arms if name.startswith(kind)), key=lambda name: sum(timed[name].seconds))
        for kind in HF
    }
    return {kind: arms[name] for kind, name in fastest.items()}, timed


def time_in_processes(
    lesson: Lesson, bench: Bench, arms: Mapping[str, Arm], sizes: GuessSizes
) -> list[dict[str, Timed]]:
    """All arms over the first test prompts in fresh processes, warmed up on validation prompts; says each run's end."""
    prompts = prompts_of(bench, "test", sizes.timed)
    options = dict(model_id=bench.model_id, dtype=bench.dtype, runs=sizes.runs, max_new_tokens=bench.max_new_tokens)
    options |= dict(turns=bench.turns, device=lesson.device)
    runs = []
    for run in fresh_runs(arms, prompts, warmup=prompts_of(bench, "validation", sizes.warmup), **options):
        runs.append(run)
        seconds = sum(sum(timed.seconds) for timed in run.values())
        print(f"process {len(runs)} of {sizes.runs}: {len(prompts)} prompts, {seconds:.0f} s of answers")
    return runs


def check_identity(results: Results, exact: Bench, arms: Mapping[str, Arm], prompts: Sequence[Sequence[int]]) -> None:
    """Whether every arm gives plain greedy's tokens in float32, many prompts at a time; writes the invariants."""
    options, of = dict(max_new_tokens=exact.max_new_tokens), len(prompts)
    truth = answers_in_batches(exact.fast, prompts, **options)
    same = {}
    for name, arm in arms.items():
        given = answers_in_batches(exact.fast, prompts, exact.made(arm), **options)
        same[name] = [mine == own for mine, own in zip(given, truth, strict=True)]
        print(f"float32, {name.replace('_', ' '):14} {sum(same[name]):3} of {of} answers identical, token for token")
    keys = {TRAINED: "speculative.identical_outputs", "prompt_lookup": "prompt_lookup.identical_outputs"}
    for name, key in keys.items():
        results.invariant(key, all(same[name]), sum(same[name]), of)
    all_arms = [all(flags) for flags in zip(*same.values())]
    results.invariant("speculative.all_arms_identical", all(all_arms), sum(all_arms), of)


def distil_own(lesson: Lesson, sizes: GuessSizes) -> Path:
    """The folder of a draft that is distilled here, for as long as the profile has time."""
    options = {"seed": lesson.seed, "eval_samples": 0} | dict(sizes.training)
    return launch(SCRIPT, lesson.model_id, options, inside=lesson.profile == "smoke") / "draft"


def draft_named(lesson: Lesson, draft: str, own: Path) -> str:
    """The draft to go on with: the one distilled here if it is called "own", else the one of that name."""
    place = str(own) if draft == "own" else draft
    models.check_made_for(place, lesson.model_id)
    if place == "draft":
        lesson.results.add_models([models.folder_of(place)])
    return place
