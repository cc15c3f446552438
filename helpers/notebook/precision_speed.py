"""What half precision does to a step's time: predicted by the equation, and measured (notebook 01)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from helpers import models
from helpers.errors import CourseError
from helpers.kernels.fastest_step import fastest_step
from helpers.measuring import timing
from helpers.measuring.cost_model import Shape, StepTime
from helpers.measuring.machine import describe_machine
from helpers.measuring.memory import weight_bytes
from helpers.measuring.timing import Comparison, speedup
from helpers.notebook import plots
from helpers.notebook.results import Results
from helpers.profiling.step_time import steps_in_turns
from helpers.weights.precision.autocast import cast_bytes

SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
ALLOWED = "auto, none, float16, bfloat16, or float16,bfloat16"
NUM_TOKENS = (1, 8, 32)  # in a decode step
PROMPT, CONTEXT = 256, 128  # tokens of a prefill; tokens before a decode step
SHIPPED = "this model"
Speedups = dict[tuple[str, str, int], Comparison]  # (model, dtype, tokens in the step): against float32


@dataclass(frozen=True)
class HalfSizes:
    """The random shape that is timed, the longest answers, questions answered (and by an emulated format), requests
    that are timed, texts whose logits are compared, and how the fastest linears are chosen."""

    shape: str
    longest: int
    answers: int
    emulated: int
    timed: int
    texts: int
    turns: int


HALF = {
    "smoke": HalfSizes("llama-50m", 12, 3, 2, 2, 2, 0),
    "cpu": HalfSizes("llama-300m", 128, 60, 20, 12, 6, 3),
    "full": HalfSizes("llama-300m", 256, 450, 450, 150, 40, 5),
    "gpu": HalfSizes("llama-300m", 256, 450, 450, 100, 40, 5),
}


def counted(n: int) -> str:
    return f"{n} token{'s' * (n > 1)}"


def show_bytes(results: Results, by_dtype: Mapping[str, nn.Module]) -> None:
    """Bytes of the weights in each dtype; writes the ratios and the invariant."""
    held = {dtype: weight_bytes(model) for dtype, model in by_dtype.items()}
    for dtype, size in held.items():
        print(f"{dtype:9} {size / 1e6:6.1f} MB")
    halves = ("bfloat16", "float16")
    exact = sum(2 * held[dtype] == held["float32"] for dtype in halves)
    results.invariant("precision.half_the_bytes", exact == 2, exact, 2)
    for dtype in halves:
        results.metric(f"precision.weight_bytes_ratio.{SHORT[dtype]}", held[dtype] / held["float32"], "ratio")


def emulated_formats(wanted: str, device: str) -> set[str]:
    """The formats that are too slow here to go on with, by a small layer, or those that EMULATE names.

    Raises:
        CourseError: EMULATE is none of the values that it can be.
    """
    names = set(wanted.replace(" ", "").split(","))
    if wanted not in ("auto", "none") and not names <= {"bfloat16", "float16"}:
        raise CourseError(f"EMULATE is {wanted!r}: it can be {ALLOWED}.")
    machine = describe_machine()
    for dtype, native in (("bfloat16", machine.bf16_is_native), ("float16", machine.fp16_is_native)):
        how = "in hardware" if native else "not in hardware (or it doesn't tell): torch goes by way of float32"
        print(f"{dtype}: the CPU multiplies it {how}")
    probe = {}
    for dtype in SHORT:
        like = {"device": device, "dtype": models.dtype_of(dtype)}
        layer = nn.Linear(1024, 1024, bias=False, **like).requires_grad_(False)
        probe[dtype] = timing.seconds_of(partial(layer, torch.randn(32, 1024).to(**like)), device=device)
        print(f"{dtype:9} 32 tokens through a small layer: {probe[dtype] * 1e6:.0f} microseconds")
    too_slow = {dtype for dtype in SHORT if probe[dtype] > 4 * probe["float32"]}
    slow = too_slow if wanted == "auto" else names - {"none"}
    print(f"Emulated from here on: {', '.join(sorted(slow)) or 'none'}.", end=" ")
    print("Emulated means computed in float32, and rounded.")
    return slow


def predict_speedups(
    results: Results, equation: StepTime, shapes: Mapping[str, Mapping[str, Shape]]
) -> dict[tuple[str, int], float]:
    """By (model, tokens in a step): how many times as fast a step in bfloat16 is, as the equation says; a step of
    PROMPT tokens is a prefill. Prints the terms behind it, and saves the predictions before anything is measured."""
    predicted = {}
    for name, by_dtype in shapes.items():
        for n in (*NUM_TOKENS, PROMPT):
            context = 0 if n == PROMPT else CONTEXT
            full, half = (equation(by_dtype[d], d, n, context) for d in ("float32", "bfloat16"))
            predicted[name, n] = full / half
            ending = ".shipped" if name == SHIPPED else ""
            if n in (1, PROMPT):
                kind = "decode" if n == 1 else "prefill"
                key = f"precision.predicted_{kind}_speedup.bf16{ending}"
                results.prediction(key, full / half, "x")
            print(f"{name:11} {counted(n):11} {full * 1e3:8.1f} ms in float32, {half * 1e3:8.1f} in bfloat16:", end=" ")
            print(f"{full / half:.2f} times as fast")
        terms = {d: equation.terms(by_dtype[d], d, 1, CONTEXT) for d in ("float32", "bfloat16")}
        share = terms["bfloat16"]["overhead"] / equation(by_dtype["bfloat16"], "bfloat16", 1, CONTEXT)
        print(f"{name:11} of a bfloat16 step of 1 token {share:.0%} is overhead, which fewer bytes don't shorten")
    return predicted


def time_against_float32(
    name: str, steps: Mapping[str, nn.Module], num_tokens: Sequence[int], *, context: int = CONTEXT, rounds: int
) -> Speedups:
    """Steps of all dtypes in turns, and each dtype's speed over float32's; prints them."""
    times = steps_in_turns(steps, num_tokens, context=context, rounds=rounds)
    base = times.pop("float32")
    found = {(name, d, n): speedup(base[n], times[d][n], of=np.median) for d in times for n in num_tokens}
    for (_, dtype, n), gain in found.items():
        print(f"{name:11} {dtype:9} {counted(n):11} {gain}")
    return found


def time_formats(
    by_dtype: Mapping[str, nn.Module], shape: str, slow: Collection[str], half: HalfSizes, device: str, rounds: int
) -> Speedups:
    """This model's steps and those of the random shape, one model after the other so that there is room; of a slow
    format the library's own step of the random shape, for one token."""

    def random(dtype: str) -> nn.Module:
        return models.shape_only(shape, dtype, device)

    def fastest(model: nn.Module) -> nn.Module:
        return fastest_step(model, min(half.turns, 2))

    quick, speed = [dtype for dtype in by_dtype if dtype not in slow], {}
    if len(quick) > 1:
        steps = {dtype: fastest(by_dtype[dtype]) for dtype in quick}
        speed |= time_against_float32(SHIPPED, steps, NUM_TOKENS, rounds=rounds)
        del steps
        steps = {dtype: fastest(random(dtype)) for dtype in quick}
        speed |= time_against_float32(shape, steps, NUM_TOKENS, rounds=rounds)
        speed |= time_against_float32(shape, steps, (PROMPT,), context=0, rounds=max(3, rounds // 3))
        del steps
    for dtype in sorted(slow):
        pair = {each: random(each) for each in ("float32", dtype)}
        speed |= time_against_float32(shape, pair, (1,), context=8, rounds=3)
    return speed


def show_speedups(results: Results, speed: Speedups, shape: str, predicted: Mapping[tuple[str, int], float]) -> None:
    """Predicted and measured side by side for the random shape; writes the metrics of both models."""
    labels, values, intervals, kinds = [], [], [], []
    for (name, dtype, n), gain in speed.items():
        kind = "prefill" if n == PROMPT else "decode"
        ending = ("" if n in (1, PROMPT) else f".rows_{n}") + (".shipped" if name == SHIPPED else "")
        interval = {"low": gain.low, "high": gain.high, "n": gain.n}
        results.metric(f"precision.{kind}_speedup.{SHORT[dtype]}{ending}", gain.ratio, "x", **interval)
        if (name, dtype) == (shape, "bfloat16"):
            labels += [f"prefill of {n} tokens" if n == PROMPT else f"decode, {counted(n)}"] * 2
            values += [predicted[name, n], gain.ratio]
            intervals += [None, (gain.low, gain.high)]
            kinds += ["predicted", "measured"]
    if not labels:
        print("bfloat16 is emulated here: there is nothing to time.")
        return
    ax = plots.bars_with_intervals(
        labels,
        values,
        intervals,
        kinds=kinds,
        title=f"{shape}: bfloat16 against float32",
        value_label="speedup (times as fast as float32)",
    )
    ax.axvline(1, color="#555555", linewidth=0.8)
    ax.figure.set_size_inches(8, 4)


def read_speedups(speed: Speedups, shape: str, predicted: Mapping[tuple[str, int], float], guess: float) -> None:
    """Where half precision is no gain here, and how far off guess and equation were."""
    lost = [f"{d} on {name}, {counted(n)} ({gain.ratio:.2f}x)" for (name, d, n), gain in speed.items() if gain.low <= 1]
    print("Not faster here:", ("; ".join(lost) or "nowhere") + ".")
    for name in (shape, SHIPPED):
        measured = speed.get((name, "bfloat16", 1))
        if measured is None:
            continue
        off = predicted[name, 1] / measured.ratio - 1
        print(f"{name}, bfloat16, one token: measured {measured}")
        print(f"   the equation said {predicted[name, 1]:.2f} ({off:+.0%} off), the bytes alone say 2.00", end="")
        print(f", you guessed {guess:g}" if name == shape else "")
        if abs(off) > 0.25:
            print(
                "   That is far off: the equation is a rough one or of another time, or this machine is busy: run 00."
            )


def show_autocast(results: Results, arms: Mapping[str, nn.Module], tokens: torch.Tensor, rounds: int) -> None:
    """What a converted model and one under autocast hold and cast, and what a pass over one of the tokens (1, n) takes,
    and over all of them, against float32. The passes have no cache: the course's decoder wants the numbers of a float32
    model to be float32's."""
    counts = (1, tokens.shape[1])
    passes = {(name, n): partial(arms[name], tokens[:, :n], use_cache=False) for n in counts for name in arms}
    with torch.inference_mode():
        times = timing.take_turns(passes, rounds, warmup=2, device=tokens.device)
    for name, network in arms.items():
        casts = cast_bytes(partial(network, tokens[:, :1], use_cache=False)) / 1e6
        print(f"{name:10} holds {weight_bytes(network) / 1e6:6.1f} MB and casts {casts:6.1f} MB more in a pass")
        for n in counts if name != "float32" else ():
            gain = speedup(times["float32", n], times[name, n], of=np.median)
            interval = {"low": gain.low, "high": gain.high, "n": gain.n}
            results.metric(f"precision.{name}_speedup.shipped.rows_{n}", gain.ratio, "x", **interval)
            print(f"     a pass over {counted(n)} against float32: {gain}")
