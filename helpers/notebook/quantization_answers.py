"""Speed and answers together: llama.cpp beside ours, both charts, and what a user waits for (notebook 02)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from helpers.errors import CourseError
from helpers.measuring.timing import Comparison, interleave, speedup
from helpers.notebook.answers import Judged
from helpers.notebook.quantization_charts import Point, draw_answers_against
from helpers.notebook.quantization_models import Opened
from helpers.notebook.quantization_quality import Quality
from helpers.notebook.quantization_sizes import QuantizationSizes
from helpers.notebook.quantization_speed import WORDS, in_short
from helpers.notebook.results import Results
from helpers.notebook.step_times import note_speedup
from helpers.profiling import llama_cpp_baseline
from helpers.profiling.against_generate import our_greedy
from helpers.profiling.llama_cpp_steps import LlamaCppSteps, time_llama_cpp
from helpers.profiling.opponents import written_files
from helpers.profiling.own_process import Workload
from helpers.profiling.quantized_steps import QuantizedSteps
from helpers.text_to_sql.evaluate import right_answers
from helpers.text_to_sql.example import Example
from helpers.weights.quantization.calibration import answer_pairs

ANSWERED = ("bf16", "int8", "int4", "nf4", "w8a8")  # PyTorch's other kernels have the numbers of ours
AS_MANY_BITS = {"Q8_0": "int8", "Q4_1": "int4"}
LLAMA_CPP = {"Q8_0": "llama.cpp, Q8_0 (8.5 bits)", "Q4_1": "llama.cpp, Q4_1 (5 bits)"}


def time_llama(
    results: Results, opened: Opened, timed: Mapping[str, QuantizedSteps], prompts: Sequence, sizes: QuantizationSizes
) -> tuple[dict[str, Path], dict[str, LlamaCppSteps]]:
    """llama.cpp's steps on the same weights in 8.5 and 5 bits, beside our fastest of as many bits; writes the ratios.
    Nothing where it takes no part, with the reason."""
    try:
        if not sizes.runs:
            raise CourseError("this profile leaves it out, and a test runs it on a small model.")
        llama_cpp_baseline.check_installed()
        paths = written_files(opened.tuned, opened.name, tuple(AS_MANY_BITS))
        options = dict(num_threads=torch.get_num_threads(), runs=sizes.runs)
        steps = time_llama_cpp(paths, prompts[: sizes.timed], warmup=prompts[:1], **options)
    except CourseError as reason:
        print(f"llama.cpp takes no part: {reason}")
        return {}, {}
    for kind, theirs in steps.items():
        ours = timed.get(AS_MANY_BITS[kind])
        if ours is None:
            continue
        gain = ratio_of_medians(theirs.seconds, ours.seconds[1])
        note_speedup(results, f"quantization.vs_llama_cpp.{kind.lower()}", gain)
        for who, steps_of in ((LLAMA_CPP[kind], theirs), (f"ours, {AS_MANY_BITS[kind]}", ours)):
            print(f"{who}: {steps_of.weight_bytes / 1e6:.0f} MB and {steps_of.median() * 1e3:.1f} ms a step;", end=" ")
        print(f"ours is {in_short(gain)} times as fast")
    return paths, steps


def ratio_of_medians(slow: Sequence[float], fast: Sequence[float], seed: int = 0) -> Comparison:
    """The median of one over that of the other, for figures that weren't taken in turns; a bootstrap of each."""
    draw = np.random.default_rng(seed)
    a, b = (np.median(np.asarray(x)[draw.integers(0, len(x), (2000, len(x)))], axis=1) for x in (slow, fast))
    low, high = np.percentile(a / b, (2.5, 97.5))
    ratio = median(slow) / median(fast)
    return Comparison(ratio, min(float(low), ratio), max(float(high), ratio), min(len(slow), len(fast)))


def answers_by_speed(
    results: Results,
    arms: Mapping[str, nn.Module],
    timed: Mapping[str, QuantizedSteps],
    paths: Mapping[str, Path],
    llama: Mapping[str, LlamaCppSteps],
    tokenizer,
    examples: Sequence[Example],
    sizes: QuantizationSizes,
) -> dict[str, tuple[float, Judged]]:
    """By name in words: tokens per second of a decode step, and the answers of the very same layers, ours and
    llama.cpp's; writes both."""
    found, prompts = {}, [prompt for prompt, _ in answer_pairs(tokenizer, examples)]
    for name in (name for name in ANSWERED if name in arms):
        try:
            judged = Judged.by(arms[name], tokenizer, examples, sizes.longest)
        except CourseError as reason:  # the decoder wants batches to change nothing but the rounding
            print(f"{WORDS[name]}: its answers are left out. {reason}")
            continue
        found[WORDS[name]] = 1 / timed[name].median(), judged
        _note_answers(results, f"step_{name}", *found[WORDS[name]])
    for kind, path in paths.items():
        load = Workload(prompts, max_new_tokens=sizes.longest)
        answers = llama_cpp_baseline.run(path, {"one": load}, num_threads=torch.get_num_threads())["one"].token_ids
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        found[LLAMA_CPP[kind]] = llama[kind].tokens_per_second, Judged.of(examples, texts)
        _note_answers(results, f"llama_cpp_{kind.lower()}", *found[LLAMA_CPP[kind]])
    return found


def _note_answers(results: Results, key: str, rate: float, judged: Judged) -> None:
    low, high = judged.interval
    ends = dict(low=min(low, judged.share), high=max(high, judged.share), n=len(judged.right))
    results.metric(f"quantization.execution_accuracy.{key}", judged.share, "share", **ends)
    results.metric(f"quantization.tokens_per_second.{key}", rate, "tokens/s")


def draw_speed(found: Mapping[str, tuple[float, Judged]]) -> None:
    """Right answers over tokens per second, and who is fastest without losing any that can be told from chance."""
    points = {name: Point(rate, sum(one.right), len(one.right)) for name, (rate, one) in found.items()}
    draw_answers_against(
        points,
        title="Answers against speed, one sequence at a time",
        label="decode speed, one sequence (tokens per second)",
        exact=WORDS["bf16"],
    )
    fastest = max(points, key=lambda name: points[name].x)
    low, high = found[WORDS["bf16"]][1].interval
    inside = low <= points[fastest].share <= high
    print(f"The fastest is {fastest}: {points[fastest].x:.0f} tokens/s, {points[fastest].right} of", end=" ")
    print(f"{points[fastest].n} right, {'inside' if inside else 'outside'} the band of bfloat16.")


def draw_bytes(quality: Mapping[str, Quality]) -> None:
    """Right answers over megabytes of the linear layers."""
    points = {q.words: Point(q.size / 1e6, sum(q.judged.right), len(q.judged.right)) for q in quality.values()}
    label = "weights of the linear layers, scales included (MB)"
    draw_answers_against(points, title="Answers against bytes", label=label, exact=quality["fp32"].words)


def show_whole_answers(
    results: Results,
    arms: Mapping[str, nn.Module],
    tokenizer,
    examples: Sequence[Example],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> None:
    """What a user waits for: whole answers, prefill and all, one after the other, the formats taking turns. Prompts
    with equal answers are compared; writes the ratios to bfloat16, and a line for each prompt."""
    named = [name for name in ("bf16", "int8", "int4") if name in arms]
    answering = {name: our_greedy(arms[name], max_new_tokens) for name in named}
    timed = interleave(answering, prompts, warmup=1)
    base = timed["bf16"]
    for name, arm in timed.items():
        written = tokenizer.batch_decode(arm.results, skip_special_tokens=True)
        good = right_answers(examples, written)
        for example, *about in zip(examples, arm.seconds, map(len, arm.results), written, good, strict=True):
            results.prompt(example.id, "greedy", name, *about)
        if name == "bf16":
            continue
        same = [place for place, answer in enumerate(arm.results) if answer == base.results[place]]
        print(f"{WORDS[name]:14} {len(same)} of {len(prompts)} answers are bfloat16's, token for token", end="")
        if len(same) > 1:
            gain = speedup(*([one.seconds[place] for place in same] for one in (base, arm)))
            note_speedup(results, f"quantization.answer_speedup.{name}", gain)
            print(f"; these: {gain}")
        else:
            print(": too few to compare")
