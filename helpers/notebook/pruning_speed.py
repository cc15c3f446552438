"""When sparsity becomes speed (notebook 04): zeros, smaller matrices, sparse kernels; and what zeros save on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import numpy as np
import torch
from torch import nn

from helpers import models
from helpers.errors import CourseError
from helpers.files import build_root
from helpers.kernels.fastest_step import fastest_step
from helpers.measuring.cost_model import Shape, StepTime
from helpers.measuring.timing import Comparison, speedup
from helpers.notebook import plots
from helpers.notebook.results import Results
from helpers.profiling.sparse_products import Seconds, csr_seconds, two_of_four_seconds, why_no_sparse_units
from helpers.profiling.step_time import steps_in_turns
from helpers.weights.pruning.storage import load_weights, save_weights
from helpers.weights.pruning.structured import Importance, plan, smaller
from helpers.weights.quantization.calibration import observed_linears

NUM_TOKENS = (1, 8, 32)  # in a decode step
CONTEXT = 128  # tokens before it
ZEROS, SMALLER = "half zeros", "smaller matrices"
KEYS = {ZEROS: "zeros_decode_speedup", SMALLER: "structured_decode_speedup"}
SPARSITIES = (0.5, 0.7, 0.9, 0.95, 0.99)  # of a weight in CSR
Speedups = dict[tuple[str, int], Comparison]  # by (arm, tokens in the step): against dense


def counted(n: int) -> str:
    return f"{n} token{'s' * (n > 1)}"


def smaller_shape(shape: str, share: float, dtype: str, device: str = "cpu") -> nn.Module:
    """A random shape with about `share` of its layers' weights gone as heads and channels: whichever, since none of
    them means anything."""
    dense = models.shape_only(shape, dtype, device)
    config, like = dense.config, {"device": "cpu" if device == "meta" else device}
    layers, heads = config.num_hidden_layers, config.num_key_value_heads
    matters = Importance(torch.rand(layers, heads, **like), torch.rand(layers, config.intermediate_size, **like))
    return smaller(dense, matters, plan(dense, share))


def predict_structured(results: Results, equation: StepTime, shape: str, share: float, dtype: str) -> dict[int, float]:
    """How many times as fast a step gets with smaller matrices, as the equation says, by the tokens in it; saved before
    anything is measured."""
    both = models.shape_only(shape, dtype, device="meta"), smaller_shape(shape, share, dtype, "meta")
    dense, small = map(Shape.of, both)
    print(f"{shape}: {small.weight_bytes / dense.weight_bytes:.0%} of the bytes are left", end=" ")
    print("(the output layer keeps all of its own)")
    predicted = {n: equation(dense, dtype, n, CONTEXT) / equation(small, dtype, n, CONTEXT) for n in NUM_TOKENS}
    for n, ratio in predicted.items():
        print(f"   a step of {counted(n):9} {ratio:.2f} times as fast, by the equation")
    results.prediction("pruning.predicted_structured_decode_speedup", predicted[1], "x")
    return predicted


@torch.no_grad()
def half_zeros(model: nn.Module) -> nn.Module:
    """Half of the weights of the blocks' linear layers become 0, in place, whichever: a kernel can't tell."""
    for linear in observed_linears(model).values():
        linear.weight.mul_(torch.rand_like(linear.weight) >= 0.5)
    return model


def time_against_dense(
    dense: Callable[[], nn.Module], others: Mapping[str, Callable[[], nn.Module]], turns: int, rounds: int
) -> Speedups:
    """Steps of each model, made when its turn comes, in turns with those of the dense one: its speed over the dense
    one's. All by the fastest step that the course has."""
    speed, base = {}, fastest_step(dense(), turns)
    for name, make in others.items():
        times = steps_in_turns({"dense": base, name: fastest_step(make(), turns)}, NUM_TOKENS, rounds=rounds)
        for n in NUM_TOKENS:
            speed[name, n] = speedup(times["dense"][n], times[name][n], of=np.median)
            print(f"{name:17} a step of {counted(n):9} {speed[name, n]}")
    return speed


def time_shape(shape: str, share: float, dtype: str, device: str, turns: int, rounds: int) -> Speedups:
    """Of a random shape: with half of its weights 0, and with smaller matrices."""

    def random() -> nn.Module:
        return models.shape_only(shape, dtype, device)

    others = {ZEROS: lambda: half_zeros(random()), SMALLER: lambda: smaller_shape(shape, share, dtype, device)}
    return time_against_dense(random, others, turns, rounds)


def write_speed(results: Results, speed: Speedups, ending: str = "") -> None:
    """The metrics; `ending` says of which model, where it isn't the large shape."""
    for (name, n), gain in speed.items():
        rows = "" if n == 1 else f".rows_{n}"
        interval = {"low": gain.low, "high": gain.high, "n": gain.n}
        results.metric(f"pruning.{KEYS[name]}{rows}{ending}", gain.ratio, "x", **interval)


def show_speed(results: Results, speed: Speedups, shape: str, predicted: Mapping[int, float], guess: float) -> None:
    """Zeros and smaller matrices, measured and predicted, in one chart; writes the metrics, and reads them."""
    write_speed(results, speed)
    labels, values, intervals, kinds = [], [], [], []
    for (name, n), gain in speed.items():
        both = [("measured", gain.ratio, (gain.low, gain.high))]
        both = [("predicted", predicted[n], None), *both] if name == SMALLER else both
        for kind, value, interval in both:
            labels.append(f"{name}, {counted(n)}")
            values.append(value), intervals.append(interval), kinds.append(kind)
    title = f"{shape} (random weights): pruned against dense"
    label = "speed of a step (times as fast as dense)"
    ax = plots.bars_with_intervals(labels, values, intervals, kinds=kinds, title=title, value_label=label)
    ax.axvline(1, color="#555555", linewidth=0.8)
    ax.figure.set_size_inches(8, 4.2)
    zeros, small = speed[ZEROS, 1], speed[SMALLER, 1]
    noticed = "was noticed" if zeros.real and zeros.ratio > 1 else "was not noticed"
    print(f"That half of the weights are 0 {noticed} by the dense kernels: {zeros}.")
    off = predicted[1] / small.ratio - 1
    print(f"Smaller matrices: {small}; the equation said {predicted[1]:.2f} ({off:+.0%} off), you guessed {guess:g}.")


def show_csr(results: Results, size: int, rounds: int, turns: int, device: str) -> None:
    """One layer's product with a weight in CSR against the dense one, by the share of its numbers that are gone; says
    from which share on it is faster, and writes the speeds."""
    try:
        seconds = csr_seconds(size, SPARSITIES, (1, 32), rounds, device, turns)
    except CourseError as reason:
        print(f"Left out: {reason}")
        return
    print(f"a float32 weight of {size} by {size}, in CSR against dense:")
    for n in (1, 32):
        faster = _write_ways(results, seconds, "csr_speedup", n)
        first = min((float(name) for name in faster), default=None)
        where = "at no sparsity tried" if first is None else f"from {first:.0%} zeros on"
        print(f"   {counted(n)}: faster than dense {where}")


def show_two_of_four(results: Results, size: int, rounds: int, device: str) -> None:
    """The same for 2:4 on a GPU's sparse units; a sentence where there are none."""
    if reason := why_no_sparse_units(device):
        print(f"Left out: {reason}")
        return
    counts = (1, 32, 256, 4096)
    seconds = two_of_four_seconds(size, counts, rounds, device=device)
    print(f"a float16 weight of {size} by {size}, 2:4 against dense:")
    for n in counts:
        _write_ways(results, seconds, "two_of_four_speedup", n)


def _write_ways(results: Results, seconds: Seconds, key: str, n: int) -> list[str]:
    """Each way's speed over the dense one's, for n tokens; the ways that are faster."""
    faster = []
    for name in dict.fromkeys(way for way, _ in seconds if way != "dense"):
        gain = speedup(seconds["dense", n], seconds[name, n], of=np.median)
        sparsity = "" if name == "2:4" else f".sparsity_{round(100 * float(name))}"
        interval = {"low": gain.low, "high": gain.high, "n": gain.n}
        results.metric(f"pruning.{key}{sparsity}.rows_{n}", gain.ratio, "x", **interval)
        print(f"   {counted(n):11} {name:5} {gain}")
        faster += [name] if gain.low > 1 else []
    return faster


def show_storage(results: Results, dense: nn.Module, half: nn.Module, two_of_four: nn.Module, limit: int = 42) -> None:
    """Files of the first `limit` weights of the blocks, two bytes a number: dense, and sparse in three ways, each read
    again and compared; writes their bytes over those of the dense file, and the invariant."""
    cases: Sequence[tuple[str, str, nn.Module, str]] = (
        ("not pruned", "dense", dense, "not_pruned"),
        ("half zeros", "dense", half, "zeros_written_out"),
        ("half zeros", "columns (CSR)", half, "csr"),
        ("half zeros", "a bit for each weight", half, "bitmask"),
        ("2:4", "2:4", two_of_four, "two_of_four"),
    )
    path, whole, restored, of = build_root() / "artifacts" / "pruned.safetensors", 0, 0, 0
    for words, form, model, key in cases:
        linears = islice(observed_linears(model).items(), limit)
        weights = {name: linear.weight.detach().cpu().bfloat16() for name, linear in linears}
        size = save_weights(weights, form, path)
        again = load_weights({name: tuple(weight.shape) for name, weight in weights.items()}, form, path)
        restored += sum(torch.equal(weight, again[name]) for name, weight in weights.items())
        whole, of = whole or size, of + len(weights)
        results.metric(f"pruning.bytes_ratio.{key}", size / whole, "ratio")
        print(f"{words:11} {form:22} {size / 1e6:7.1f} MB, {size / whole:.3f} of the dense file")
    path.unlink()
    results.invariant("pruning.files_restore_weights", restored == of, restored, of)
    print("For comparison, by counting bits: int8 takes 0.5 and int4 0.25 of it, and their scales on top.")
