"""Whole requests: what validation chose against plain greedy decoding, and whether the answers are the same (08)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from helpers import models
from helpers.decoding.in_batches import answers_in_batches
from helpers.decoding.proposer import Proposer
from helpers.errors import CourseError
from helpers.measuring.quality import paired, wilson
from helpers.measuring.timing import Comparison, Timed, interleave, speedup
from helpers.notebook.medusa_bench import BFLOAT16, FLOAT32, MedusaBench
from helpers.notebook.medusa_choice import FixedTree
from helpers.notebook.results import Results
from helpers.notebook.step_times import note_speedup
from helpers.profiling.arms import Answer, Arm, Bench
from helpers.profiling.fresh_runs import fresh_runs, gain_over_runs, tokens_per_step
from helpers.profiling.medusa_arms import fixed_tree_arm, keep_arms, planned_arm
from helpers.speculation.plan import Plan
from helpers.text_to_sql.evaluate import right_answers
from helpers.text_to_sql.example import Example

GREEDY, ALONE, ALL, LARGE, DRAFT = "greedy", "heads", "all guessers", "heads, large tree", "draft model"
KEY = {ALONE: "", ALL: ".with_lookup", LARGE: ".tree_64", DRAFT: ".draft_model"}  # what follows "medusa.speedup"
Runs = Sequence[Mapping[str, Timed]]


def chosen_arms(bench: MedusaBench, found: FixedTree, plan: Plan, large: Sequence = ()) -> dict[str, Arm]:
    """Plain greedy decoding, the heads with the tree that validation chose, and the tree of all guessers; with `large`
    a tree of about the paper's size. Kept as files, for the processes that run them and for the extra 08b."""
    path = plan.save(bench.folder / f"plan_{Path(bench.model_id).name}.json")
    place = bench.heads_place
    arms = {GREEDY: {"make": "greedy"}, ALONE: fixed_tree_arm(place, found.tree), ALL: planned_arm(place, path)}
    if bench.model_id == bench.lesson.model_id:
        keep_arms(bench.lesson.profile, arms)
    return arms | ({LARGE: fixed_tree_arm(place, large)} if large else {})


def draft_arm(bench: MedusaBench, count: int = 4) -> dict[str, Arm]:
    """The course's draft model as an opponent; nothing, with the reason, where there is none for this model."""
    try:
        models.check_made_for("draft", bench.model_id)
        models.folder_of("draft")
    except CourseError as reason:
        print("The draft model is left out:", reason)
        return {}
    if bench.model_id != "fine-tuned":
        return {}
    bench.lesson.results.add_models([models.folder_of("draft")])
    return {DRAFT: {"make": "draft_model", "draft": "draft", "count": count, "min_probability": 0.4}}


def timed_runs(
    bench: MedusaBench,
    arms: Mapping[str, Arm],
    prompts: Sequence[list[int]],
    warmup: Sequence[list[int]],
    runs: int,
    dtype: str = BFLOAT16,
) -> Runs:
    """All arms answer all prompts in turns, in `runs` fresh processes (under `smoke` once, in this one)."""
    options = dict(model_id=bench.model_id, dtype=dtype, device=bench.lesson.device)
    options |= dict(max_new_tokens=bench.sizes.longest, turns=bench.sizes.turns)
    if bench.lesson.profile == "smoke":
        here = Bench(**options)
        answers = {name: here.answers(arm) for name, arm in arms.items()}
        for answer in answers.values():
            answer(warmup[0])
        return [interleave(answers, prompts, warmup=0)]
    done = []
    for run in fresh_runs(arms, prompts, warmup=warmup, runs=runs, **options):
        done.append(run)
        mean = 1e3 * np.mean(run[GREEDY].seconds)
        print(f"run {len(done)} of {runs}: plain greedy {mean:.0f} ms a request", flush=True)
    return done


def part(runs: Runs, start: int, stop: int | None = None) -> Runs:
    """The same runs, of these prompts alone (by their places)."""
    return [{arm: Timed(t.seconds[start:stop], t.results[start:stop]) for arm, t in run.items()} for run in runs]


def show_identity(
    bench: MedusaBench, results: Results, proposers: Mapping[str, Proposer], prompts: Sequence[list[int]]
) -> None:
    """In float32: to how many prompts each proposer's answers are those of plain greedy decoding, token by token;
    writes the invariants. Several prompts are answered at a time; what differs is asked again by itself, since a batch
    rounds otherwise."""
    options = dict(max_new_tokens=bench.sizes.longest)
    plain = answers_in_batches(bench.fast[FLOAT32], prompts, **options)
    keys = {ALONE: "medusa.identical_outputs", ALL: "medusa.with_lookup_identical_outputs"}
    for name, proposer in proposers.items():
        guessed = answers_in_batches(bench.fast[FLOAT32], prompts, proposer, **options)
        differ = [i for i, (a, b) in enumerate(zip(plain, guessed)) if a != b]
        wrong = [i for i in differ if not _same_alone(bench, prompts[i], proposer)]
        same = len(prompts) - len(wrong)
        print(f"float32, {name}: {same} of {len(prompts)} answers identical, token for token", end="")
        print(f" ({len(differ)} of them asked again by themselves)" if differ else "")
        results.invariant(keys[name], not wrong, same, len(prompts))


def _same_alone(bench: MedusaBench, prompt: list[int], proposer: Proposer) -> bool:
    return bench.answer(prompt).token_ids == bench.answer(prompt, proposer).token_ids


def show_speed(
    bench: MedusaBench, results: Results, runs: Runs, examples: Sequence[Example], kind: str = ""
) -> dict[str, Comparison]:
    """A line for each arm: milliseconds a request, tokens a step, the speed beside plain greedy, identical answers and
    changed ones; writes the metrics, their keys ending in `kind` ("chatty", say)."""
    end, sql = f".{kind}" if kind else "", kind != "chatty"
    first, of = runs[0][GREEDY].results, len(examples)
    texts = {arm: [bench.text(answer.token_ids) for answer in t.results] for arm, t in runs[0].items()}
    right = {arm: right_answers(examples, text) for arm, text in texts.items()} if sql else {}
    print(f"bfloat16, {of} prompts, {len(runs)} process{'es' * (len(runs) > 1)}; {_ms(runs, GREEDY):.0f} ms", end=" ")
    print("a request by plain greedy decoding")
    gains = {}
    for arm in (name for name in runs[0] if name != GREEDY):
        key, gain = KEY[arm] + end, gain_over_runs(runs, GREEDY, arm)
        gains[arm] = note_speedup(results, f"medusa.speedup{key}", gain)
        tokens = tokens_per_step(runs, arm)
        _note_tokens(results, f"medusa.accepted_per_step{key}", runs[0][arm].results, tokens)
        same = sum(a.token_ids == b.token_ids for a, b in zip(first, runs[0][arm].results))
        share, (low, high) = same / of, wilson(same, of)
        ends = dict(low=min(low, share), high=max(high, share), n=of)
        results.metric(f"medusa.identical_share{key}.bf16", share, "share", **ends)
        changed = f"; {paired(right[GREEDY], right[arm])}" if sql else ""
        print(f"   {arm:18} {_ms(runs, arm):6.0f} ms, {tokens:.2f} tokens a step; same tokens {same} of {of}{changed}")
        print(f"{'':29} {gain}")
    if sql:
        _note_right(results, right, kind)
    for arm, timed in runs[0].items():
        verdicts = right.get(arm, [None] * of)
        for row in zip(examples, timed.seconds, timed.results, texts[arm], verdicts):
            example, seconds, answer, text, good = row
            results.prompt(f"{example.id}{end}", arm, BFLOAT16, seconds, len(answer.token_ids), text, good)
    return gains


def _note_tokens(results: Results, key: str, answers: Sequence[Answer], tokens: float) -> None:
    """Write the tokens a step, with an interval over the answers that had steps."""
    pairs = [(len(answer.token_ids) - 1, answer.num_steps) for answer in answers if answer.num_steps]
    ends = {}
    if len(pairs) > 1:
        over = speedup(*zip(*pairs))
        ends = dict(low=min(over.low, tokens), high=max(over.high, tokens))
    results.metric(key, tokens, "tokens", n=len(answers), **ends)


def _note_right(results: Results, right: Mapping[str, Sequence[bool]], kind: str) -> None:
    """How many answers are right: of the tree of all guessers, and of plain greedy decoding."""
    for arm, end in ((ALL, ""), (GREEDY, ".greedy")):
        count, of = sum(right[arm]), len(right[arm])
        low, high = wilson(count, of)
        ends = dict(low=min(low, count / of), high=max(high, count / of), n=of)
        key = f"medusa.{kind}{'_' * bool(kind)}execution_accuracy{end}"
        results.metric(key, count / of, "share", **ends)
        print(f"   right answers, {arm}: {count} of {of} ({low:.0%} to {high:.0%})")


def _ms(runs: Runs, arm: str) -> float:
    return 1e3 * float(np.mean([run[arm].seconds for run in runs]))


def score_predictions(gains: Mapping[str, Comparison], found: FixedTree, plan: Plan, guess: float) -> None:
    """What validation promised, what you guessed, and what was measured."""
    for arm, promised in ((ALONE, found.speedup), (ALL, plan.speedup)):
        measured = gains[arm].ratio
        print(f"{arm}: {promised:.2f} predicted, {measured:.2f} measured: {promised / measured - 1:+.0%}")
    print(f"Your guess for the heads was {guess:g}.")
    if gains[ALONE].real and gains[ALL].low > gains[ALONE].high:
        print("The tree of all guessers is faster than heads alone: the two intervals lie apart.")
    else:
        print("These intervals can't show that all guessers together are faster than heads alone.")


def show_latencies(results: Results, runs: Runs) -> None:
    """Average and P90 of a request's latency, as the published notebook has them, and all of them as a histogram."""
    seconds = {arm: np.mean([run[arm].seconds for run in runs], axis=0) for arm in (GREEDY, ALONE, ALL)}
    print(f"{'ms a request, bfloat16':24}{'average':>9}{'P90':>9}")
    for arm, each in seconds.items():
        print(f"{arm:24}{1e3 * each.mean():9.0f}{1e3 * np.percentile(each, 90):9.0f}")
    gain = speedup(seconds[GREEDY], seconds[ALONE], of=lambda s, axis=None: np.percentile(s, 90, axis))
    ends = dict(low=min(gain.low, gain.ratio), high=max(gain.high, gain.ratio))  # of a quantile of few
    note_speedup(results, "medusa.p90_speedup", replace(gain, **ends))
    _, ax = plt.subplots(figsize=(7, 3))
    edges = np.linspace(0, 1e3 * max(each.max() for each in seconds.values()), 40)
    for (arm, each), style in zip(seconds.items(), ("-", "--", ":")):
        ax.hist(1e3 * each, bins=edges, histtype="step", linewidth=1.8, linestyle=style, label=arm)
    title = "How long requests took (bfloat16, mean of the processes)"
    ax.set(title=title, xlabel="latency of a request (ms)", ylabel="requests (count)")
    ax.legend()
