"""What fine-tuning did to the answers (notebook 03): which are right, their spelling, length, and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mean, median

import numpy as np
from torch import nn

from helpers.decoding.completion import Completion
from helpers.decoding.generate import generate
from helpers.kernels.fastest_step import fastest_step
from helpers.measuring.quality import paired
from helpers.measuring.timing import Timed, interleave, speedup
from helpers.notebook.answers import Judged
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.profiling.step_time import steps_in_turns
from helpers.text_to_sql.evaluate import right_answers
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.match import is_exact_match, is_normalized_match
from helpers.text_to_sql.prompts import extract_sql
from helpers.training.self_distillation import greedy_answers

BASE, OWN, SHIPPED = "base", "trained here", "shipped adapter"
SUFFIX = {BASE: ".base", OWN: ".own", SHIPPED: ""}


def judge(
    models: Mapping[str, tuple[nn.Module, int, int]], tokenizer, examples: Sequence[Example], turns: int
) -> dict[str, Judged]:
    """The answers of each model, given with the number of questions and the longest answer, by its fastest step."""
    return {
        name: Judged.by(fastest_step(model, turns), tokenizer, examples[:count], longest)
        for name, (model, count, longest) in models.items()
    }


def show_quality(results: Results, judged: Mapping[str, Judged]) -> None:
    """A line for each model: right answers, those spelled as the reference, SQL alone; writes the metrics."""
    main = list(judged)[-1]  # the shipped one, or where there is none the one that was trained here
    print(f"{'':16} {'right when run':>26} {'normalized':>11} {'exact':>7} {'SQL alone':>10}")
    for name, one in judged.items():
        n, (low, high) = len(one.right), one.interval
        pairs = [(text, example.answer) for text, example in zip(one.texts, one.examples)]
        normalized = sum(is_normalized_match(*pair) for pair in pairs) / n
        exact = sum(is_exact_match(*pair) for pair in pairs) / n
        alone = sum(bool(text.strip()) and extract_sql(text) == text.strip() for text in one.texts) / n
        counts = f"{sum(one.right):3} of {n:3}, {low:.0%} to {high:.0%}"
        print(f"{name:16} {counts:>26} {normalized:11.0%} {exact:7.0%} {alone:10.0%}")
        for suffix in sorted({SUFFIX[name], "" if name == main else SUFFIX[name]}):
            ends = {"low": min(low, one.share), "high": max(high, one.share)}  # rounding, where none or all are right
            results.metric(f"lora.execution_accuracy{suffix}", one.share, "share", **ends, n=n)
            results.metric(f"lora.normalized_match{suffix}", normalized, "share", n=n)
            results.metric(f"lora.exact_match{suffix}", exact, "share", n=n)
            results.metric(f"lora.bare_sql_rate{suffix}", alone, "share", n=n)
    _read_quality(judged, main)


def _read_quality(judged: Mapping[str, Judged], main: str) -> None:
    base, tuned = judged[BASE], judged[main]
    both = min(len(base.right), len(tuned.right))
    print(f"{main} against base, on the same questions: {paired(base.right[:both], tuned.right[:both])}.")
    spelled = zip(tuned.right, tuned.texts, tuned.examples)
    others = sum(good and not is_normalized_match(text, example.answer) for good, text, example in spelled)
    say(
        f"{others} of its {sum(tuned.right)} right answers are spelled otherwise than the reference:",
        "matching would have called them wrong.",
    )


def show_identical(
    results: Results, merged: nn.Module, adapted: nn.Module, prompts: Sequence[list[int]], longest: int
) -> None:
    """In float32: how many answers of the merged model are, token for token, those with the adapter beside the weights;
    writes the share."""
    one, other = ([a.tokens for a in greedy_answers(model, prompts, longest)] for model in (merged, adapted))
    same = sum(a == b for a, b in zip(one, other, strict=True))
    results.metric("lora.merged_identical_answers", same / len(prompts), "share", n=len(prompts))
    say(
        f"Merged and unmerged (float32): {same} of {len(prompts)} answers are the same, token for token.",
        "The others met a near tie, which rounding decided." if same < len(prompts) else "",
    )


def show_unmerged_step(results: Results, merged: nn.Module, adapted: nn.Module, rounds: int) -> None:
    """What a step costs with the adapter beside the weights, against the merged one; writes the ratio."""
    steps = steps_in_turns({"merged": merged, "unmerged": adapted}, (1,), rounds=rounds)
    gain = speedup(steps["merged"][1], steps["unmerged"][1], of=np.median)
    results.metric("lora.unmerged_step_speedup", gain.ratio, "x", low=gain.low, high=gain.high, n=gain.n)
    say(
        f"A step with the adapter beside the weights, against the merged one: {gain}.",
        "The numbers are few, but each layer starts two more products, and a conversion.",
    )


def time_requests(
    base: nn.Module, tuned: nn.Module, tokenizer, prompts: Sequence[list[int]], longest: int, turns: int
) -> dict[str, Timed]:
    """Whole requests, prompt and all, by the fastest step of both, taking turns."""
    arms = {
        name: partial(generate, fastest_step(model, turns), tokenizer, max_new_tokens=longest)
        for name, model in (("base", base), ("fine-tuned", tuned))
    }
    return interleave(arms, prompts, warmup=1, device=str(base.device))


def show_latency(results: Results, timed: Mapping[str, Timed], examples: Sequence[Example], guess: float) -> None:
    """Tokens of an answer, time of a request and of a step, and the ratio beside the guess; writes the metrics."""
    n = len(examples)
    gain = speedup(timed["base"].seconds, timed["fine-tuned"].seconds)
    tokens = {name: mean(len(c.token_ids) for c in arm.results) for name, arm in timed.items()}
    ratio = tokens["fine-tuned"] / tokens["base"]
    results.metric("lora.latency_speedup", gain.ratio, "x", low=gain.low, high=gain.high, n=gain.n)
    results.metric("lora.tokens_per_answer_ratio", ratio, "ratio", n=n)
    for name, arm in timed.items():
        cut = sum(c.finish_reason == "length" for c in arm.results)
        print(f"{name:10} {tokens[name]:5.1f} tokens an answer ({cut} of {n} cut off),", end=" ")
        print(f"{mean(arm.seconds) * 1e3:6.0f} ms a request, {_step_ms(arm.results):.1f} ms a step")
        good = right_answers(examples, [c.text for c in arm.results])
        for example, seconds, c, right in zip(examples, arm.seconds, arm.results, good):
            results.prompt(example.id, name, "float32", seconds, len(c.token_ids), c.text, right)
    print(f"A request, fine-tuned against base: {gain}. You guessed {guess:g}.")
    prefill = mean(c.steps[0].seconds for c in timed["fine-tuned"].results) / mean(timed["fine-tuned"].seconds)
    say(
        f"By the tokens alone it would be {1 / ratio:.2f}. The prompt is read in both:",
        f"that is {prefill:.0%} of a fine-tuned request.",
    )
    if any(c.finish_reason == "length" for c in timed["base"].results):
        say("Answers that were cut off would have gone on: without the limit the base would take longer still.")


def _step_ms(completions: Sequence[Completion]) -> float:
    """Median milliseconds of a decode step."""
    decode = [step.seconds for completion in completions for step in completion.steps[1:]]
    return 1e3 * median(decode) if decode else float("nan")
