"""What a step's time says, as figures and sentences: the clock, the verify cost, the roofline, the bar (00 and 00c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median

import matplotlib.pyplot as plt
import numpy as np

from helpers.decoding.completion import Completion
from helpers.decoding.generate import generate
from helpers.measuring import timing
from helpers.measuring.cost_model import Shape, StepTime
from helpers.measuring.latency import latency
from helpers.notebook import diagrams, plots
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.profiling.model_steps import Steps

SUFFIX = {"float32": "", "bfloat16": ".bf16"}
NEXT = {  # what shortens each term of the equation
    "overhead": "starting its operations. Fewer of them help (the fused step, 00c), and compiled ones",
    "weights": "reading its weights. Fewer bytes for each weight help (01), and more tokens from one reading (07, 08)",
    "arithmetic": "computing. Cheaper formats help (01), and fewer weights",
    "KV cache": "reading the KV cache. Shorter contexts help, and fewer KV heads (00b)",
}


def show_clock(completion: Completion) -> None:
    """One answer's steps on a time line, and what they took."""
    lane, clock = [], 0.0
    for step in completion.steps:
        lane.append((clock * 1e3, step.seconds * 1e3, len(step.emitted)))
        clock += step.seconds
    plots.timeline_of_steps({"one answer": lane}, title="The prefill, then a step for every further token")
    plt.gcf().set_size_inches(10, 1.8)
    prefill, decode = completion.steps[0], [step.seconds for step in completion.steps[1:]]
    print(f"The prefill read {prefill.num_tokens} tokens in {prefill.seconds * 1e3:.0f} ms.", end=" ")
    if not decode:
        print("The answer ended with its first token.")
        return
    step = median(decode)
    print(f"The {len(decode)} steps after it read one token each, in {step * 1e3:.0f} ms (median).")
    ratio = prefill.seconds / step
    print(f"{prefill.num_tokens} tokens at once took {ratio:.1f} times as long as one:", end=" ")
    print(f"a token of the prefill cost {ratio / prefill.num_tokens:.0%} of a token written.")


def note_steps(results: Results, steps: Mapping[str, Steps], bandwidth: float, prefix: str = "start") -> None:
    """Write each way's step times, its 8 tokens over 1, and its share of the bandwidth."""
    for way, one in steps.items():
        name, suffix = way.replace(" ", "_"), SUFFIX[one.dtype]
        for n, seconds in one.seconds.items():
            results.metric(f"{prefix}.step_ms.{name}.tokens_{n}{suffix}", one.median(n) * 1e3, "ms", n=len(seconds))
        results.metric(f"{prefix}.bandwidth_share.{name}{suffix}", one.share_of(bandwidth), "share")


def note_speedup(results: Results, key: str, gain: timing.Comparison) -> timing.Comparison:
    """Write a ratio with its interval."""
    results.metric(key, gain.ratio, "x", low=gain.low, high=gain.high, n=gain.n)
    return gain


def eight_tokens(results: Results, steps: Steps, key: str) -> timing.Comparison:
    """A step for 8 tokens over a step for 1, round by round; writes it."""
    return note_speedup(results, key, timing.speedup(steps.seconds[8], steps.seconds[1], of=np.median))


def show_machine(results: Results, bandwidth: float, rates: Mapping[str, float], shapes: Mapping[str, Shape]) -> None:
    """Bytes and operations per second as probed, and the model's bytes, by dtype; writes the first two."""
    print(f"this machine reads {bandwidth / 1e9:.0f} GB/s")
    results.metric("start.bandwidth_gb_s", bandwidth / 1e9, "GB/s")
    for dtype, rate in rates.items():
        print(f"{dtype}: the weights take {shapes[dtype].weight_bytes / 1e6:.0f} MB;", end=" ")
        print(f"it computes {rate / 1e9:.0f} GFLOP/s")
        results.metric(f"start.matmul_gflops.{dtype}", rate / 1e9, "GFLOP/s")


def show_eight_tokens(results: Results, steps: Mapping[str, Steps], equation: StepTime, guess: float) -> None:
    """A fused step for 8 tokens over one for 1, by dtype: the guess, the measurement and the equation; writes it."""
    print(f"8 tokens against 1, fused step: your guess was {guess:g} times.")
    for dtype, one in steps.items():
        measured = eight_tokens(results, one, f"start.eight_tokens{SUFFIX[dtype]}").ratio
        eight, single = (equation(one.shape, dtype, n, one.context) for n in (8, 1))
        print(f"{dtype}: {measured:.2f} times measured, {eight / single:.2f} by the equation")


def show_answer_time(results: Results, predicted: float, seconds: Sequence[float]) -> None:
    """What the equation predicted for a whole answer in bfloat16, and what it took on average; writes that."""
    took = mean(seconds)
    results.metric("start.answer_seconds.bf16", took, "s", n=len(seconds))
    print(f"an answer, bfloat16: the equation said {predicted:.2f} s, it took {took:.2f} s:", end=" ")
    print(f"{abs(predicted / took - 1):.0%} off")


def show_verify_cost(steps: Mapping[str, Steps], title: str = "What more tokens in a step cost") -> None:
    """A line for each: the step's time by the tokens that it reads, beside that of one token."""
    plots.step_time_vs_tokens({name: one.relative() for name, one in steps.items()}, title=title)
    plt.gcf().set_size_inches(8, 4.2)
    for name, one in steps.items():
        most = free_tokens(one)
        print(f"{name:24} 8 tokens cost {dict(one.relative())[8]:.2f} times one;", end=" ")
        print(f"up to {most} token{'s' * (most > 1)} cost less than 1.25 times one")
    name, last = list(steps.items())[-1]
    say(
        f"Checking 7 guesses in a step pays once it brings {dict(last.relative())[8]:.2f} tokens on average ({name}),",
        "if guessing is free. Notebooks 07 and 08 live on that.",
    )


def free_tokens(steps: Steps, most: float = 1.25) -> int:
    """The largest number of tokens such that it, and every smaller one measured, costs less than `most` times one."""
    free = 1
    for n, ratio in sorted(steps.relative()):
        if ratio >= most:
            break
        free = n
    return free


def show_roofline(steps: Mapping[str, Steps], bandwidth: float, rate: float) -> None:
    """The measured steps below the two roofs, and how near they come."""
    one = next(iter(steps.values()))
    points = {name: [(n, each.median(n)) for n in each.seconds] for name, each in steps.items()}
    width = one.shape.weight_bytes / one.shape.parameters
    figures = dict(parameters=one.shape.parameters, bytes_per_weight=width, bandwidth=bandwidth, rate=rate)
    diagrams.draw_roofline(points, **figures)
    for name, each in steps.items():
        most = max(each.seconds)
        computed = 2 * most * each.shape.parameters / each.median(most) / rate
        print(f"{name:14} with 1 token: {each.share_of(bandwidth):.0%} of the slanted roof;", end=" ")
        print(f"with {most}: {computed:.0%} of the flat one")
    least = max(one.shape.weight_bytes / bandwidth, 2 * one.shape.parameters / rate)
    print(f"The roof allows a step of {least * 1e3:.1f} ms.", end=" ")
    best = min(steps, key=lambda name: steps[name].median())
    gap = steps[best].median() / least
    print(f"The faster of the two ({best}) takes {gap:.1f} times that.", end=" ")
    print("The rest is overhead." if gap > 1.5 else "Little is left to gain without reading less.")


def show_bars(equation: StepTime, steps: Mapping[str, Steps]) -> dict[str, dict[str, float]]:
    """A measured step of one token as a bar, for each way to compute it: weights, arithmetic and KV cache by the
    equation, and what remains is overhead. Returns the terms in seconds."""
    terms = {name: _terms(equation, one) for name, one in steps.items()}
    title = "A decode step's time: three terms by the equation, the rest is overhead"
    measured = {
        name: one.median() for name, one in steps.items() if not terms[name]["overhead"]
    }  # shorter than its bar
    diagrams.draw_step_bars(terms, measured, form=equation.form, title=title)
    return {name: counted(parts, equation.form) for name, parts in terms.items()}


def _terms(equation: StepTime, steps: Steps) -> dict[str, float]:
    """Seconds of each term of a measured step of one token: all but the overhead by the equation, which is the rest."""
    parts = equation.terms(steps.shape, steps.dtype, 1, steps.context)
    rest = equation(steps.shape, steps.dtype, 1, steps.context) - parts["overhead"]
    return parts | {"overhead": max(0.0, steps.median() - rest)}


def counted(parts: Mapping[str, float], form: str) -> dict[str, float]:
    """The terms that make up the time: where reading and computing overlap, without the shorter of the two."""
    hidden = min(("weights", "arithmetic"), key=parts.get) if form == "max" else None
    return {name: seconds for name, seconds in parts.items() if name != hidden}


def read_bars(terms: Mapping[str, Mapping[str, float]]) -> None:
    """What the bars say, in sentences."""
    for name, parts in terms.items():
        largest = max(parts, key=parts.get)
        share = parts[largest] / sum(parts.values())
        print(f"{name}: the largest term is {largest} ({share:.0%} of all terms).")
    if {"transformers", "fused"} <= terms.keys():
        before, after = (terms[name]["overhead"] for name in ("transformers", "fused"))
        if not after:
            print("The other terms alone are more than the fused step took: the fit is too rough to see its overhead.")
        elif before > 1.1 * after:
            say(
                f"Fusing took away {1 - after / before:.0%} of the overhead. Model and answers are the same:",
                "only how the work is handed to the processor changed. The extra notebook 00c shows it.",
            )
        else:
            print("Fusing saved nothing that can be seen here.")


def show_limit(equation: StepTime, steps: Steps) -> None:
    """The closing sentence: the largest term of a step of one token, as its bar shows it, and what shortens it."""
    parts = counted(_terms(equation, steps), equation.form)
    largest = max(parts, key=parts.get)
    share = parts[largest] / sum(parts.values())
    say(f"In {steps.dtype}, {share:.0%} of this model's fused step is {NEXT[largest]}.")


def show_times(steps: Mapping[str, Steps], num_tokens: Sequence[int]) -> None:
    """Milliseconds of a step, a line for each way, a column for each number of tokens."""
    print(f"{'ms a step, tokens:':24}" + "".join(f"{n:7}" for n in num_tokens))
    for name, one in steps.items():
        print(f"{name:24}" + "".join(f"{one.median(n) * 1e3:7.1f}" for n in num_tokens))


def record_latency(results: Results, model, tokenizer, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """What a user feels, over answers to these prompts: prints it, and writes its metrics."""
    felt = latency([generate(model, tokenizer, ids, max_new_tokens=max_new_tokens) for ids in prompts])
    print(f"The first token came after {felt.ttft_ms:.0f} ms (median),", end=" ")
    print(f"then one every {felt.itl_mean_ms:.1f} ms on average.")
    print(f"Between tokens: half under {felt.itl_p50_ms:.1f} ms, nine in ten under {felt.itl_p90_ms:.1f},", end=" ")
    print(f"99 in 100 under {felt.itl_p99_ms:.1f}.")
    print(f"Whole answers, prefill and all: {felt.tokens_per_second:.0f} tokens per second.")
    wait = felt.ttft_ms / felt.itl_mean_ms
    print(f"A user waits for the first token as long as for {wait:.0f} later ones: the prefill is felt on its own.")
    for name in ("ttft_ms", "itl_mean_ms", "itl_p50_ms", "itl_p90_ms", "itl_p99_ms"):
        results.metric(f"start.{name}", getattr(felt, name), "ms", n=felt.n)
    results.metric("start.answer_tokens_per_second", felt.tokens_per_second, "tokens/s", n=felt.n)
