"""What fine-tuning costs, printed and recorded (notebook 03): padding, the time of a step, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
import torch

from helpers import models
from helpers.measuring.timing import speedup
from helpers.notebook import plots
from helpers.notebook.lora_parts import linear_shapes
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.training.completions import IGNORED, Encoded
from helpers.training.memory import training_bytes
from helpers.training.packing import Tree, pack, trees_of
from helpers.training.step_speed import COMPILED, LEARNED, PACKED, PLAIN, PRODUCTS, SHARED, StepTimes
from helpers.weights.adapters.lora import lora_parameters

KEYS = {  # of each way of a training step
    PLAIN: "plain",
    PACKED: "packed",
    SHARED: "shared_tables",
    LEARNED: "logits_of_answers",
    PRODUCTS: "by_products",
    COMPILED: "compiled",
}
THREE = ("full", "lora", "qlora")
WORDS = {"full": "every weight", "lora": "LoRA", "qlora": "QLoRA"}
ADAM = 12  # bytes beside a trained float32 number: its gradient, and two averages


def show_packing(encoded: Sequence[Encoded], groups: Sequence[Sequence[Encoded]], length: int) -> None:
    """Places that the training split takes: a row for each example, packed, packed with shared tables."""
    tokens = sum(len(e.ids) for e in encoded)
    learned = sum(label != IGNORED for e in encoded for label in e.labels)
    longest = max(len(e.ids) for e in encoded)
    length = max(length, longest)
    say(
        f"{len(encoded)} examples of {tokens / len(encoded):.0f} tokens,",
        f"of which {learned / len(encoded):.0f} are learned.",
    )
    places = {
        f"a row for each, as long as the longest ({longest})": longest * len(encoded),
        f"packed into rows of {length}": length * len(pack([Tree((e,)) for e in encoded], length)),
        "packed, tables shared": length * len(pack(trees_of(groups, length), length)),
    }
    for words, count in places.items():
        print(f"{words:48} {count:9,} places, {tokens / count:.2f} tokens of examples in each")


def show_ways(results: Results, times: StepTimes) -> None:
    """A line for each way of a training step, and what its saving brought; writes tokens a second and the speedup."""
    print(f"A step learns from {times.num_tokens} tokens of examples, each with its whole prompt.")
    print(f"{'':28} {'places':>8} {'s/step':>8} {'tokens/s':>9} {'loss':>8}")
    middles = {way: median(seconds) for way, seconds in times.seconds.items()}
    for way, seconds in middles.items():
        rate, rounds = times.num_tokens / seconds, len(times.seconds[way])
        results.metric(f"lora.training_tokens_per_second.{KEYS[way]}", rate, "tokens/s", n=rounds)
        print(f"{way:28} {times.places[way]:8} {seconds:8.2f} {rate:9.0f} {times.losses[way]:8.3f}")
    last = list(middles)[-1]
    gain = speedup(times.seconds[PLAIN], times.seconds[last], of=np.median)
    results.metric("lora.training_speedup", gain.ratio, "x", low=gain.low, high=gain.high, n=gain.n)
    print(f"All of them together, against plain: {gain}")
    steps = {after: middles[before] / middles[after] for before, after in pairwise(middles)}
    best = max(steps, key=steps.get)
    idle = [way.removeprefix("+ ") for way, ratio in steps.items() if ratio < 1.02]
    say(
        f"Most of it is {best.removeprefix('+ ')!r}: {steps[best]:.2f} times as fast as the way above it.",
        f"Nothing gained here: {', '.join(idle)}." if idle else "Each of them gains something.",
        f"The loss is the same but for rounding (it spreads by {np.ptp(list(times.losses.values())):.4f}):",
        "the same tokens are learned.",
    )
    if COMPILED not in times.seconds:
        say("Compiled layers are left out: they take a compiler, half a minute, and another profile than smoke.")


def show_costs(results: Results, reports: Mapping[str, Mapping], model) -> None:
    """Trained share, time of a step and peak memory of each method, and what that memory is; writes the metrics."""
    total = sum(p.numel() for p in model.parameters())
    print(f"{'':14} {'trained':>8} {'s/step':>7} {'peak memory':>12}   {'of it, weights, gradients, averages':>36}")
    rest = {}
    for method, report in reports.items():
        kept = (report["weight_bytes"] + ADAM * report["trainable"]) / 2**30
        rest[method] = report["peak_memory_gib"] - kept
        seconds = "-" if method == "full" else f"{report['seconds'] / report['steps']:.2f}"
        shares = f"{report['trainable'] / total:8.1%} {seconds:>7} {report['peak_memory_gib']:8.2f} GiB"
        print(f"{WORDS[method]:14} {shares}   {kept:32.2f} GiB")
    for method in ("lora", "qlora"):
        ratio = reports[method]["peak_memory_gib"] / reports["full"]["peak_memory_gib"]
        results.metric(f"{method}.peak_memory_ratio", ratio, "ratio")
        results.metric(f"{method}.seconds_per_step", reports[method]["seconds"] / reports[method]["steps"], "s")
    _read_costs(reports, rest)


def _read_costs(reports: Mapping[str, Mapping], rest: Mapping[str, float]) -> None:
    """Why the three take what they take, in sentences."""
    lora, qlora = (reports[method]["peak_memory_gib"] for method in ("lora", "qlora"))
    slower = reports["qlora"]["seconds"] / reports["qlora"]["steps"]
    slower /= reports["lora"]["seconds"] / reports["lora"]["steps"]
    if qlora < lora:
        four_bits = f"Four bits save {lora - qlora:.2f} GiB here, beside LoRA."
    else:
        four_bits = (
            f"QLoRA takes {qlora - lora:.2f} GiB more than LoRA here: its weights are smaller, but each product "
            "unpacks them."
        )
    say(
        "What is left are activations, kept from the forward pass for the backward pass, and what a step unpacks:",
        ", ".join(f"{WORDS[method]} {max(0.0, gib):.2f} GiB" for method, gib in rest.items()) + ".",
        four_bits,
        "The weights of a small model are a small part of the whole: the next figure is about a large one.",
        f"A step of QLoRA takes {slower:.2f} times as long as one of LoRA: it unpacks every matrix, forward and back.",
    )


def draw_memory_of_7b(results: Results, rank: int) -> None:
    """What each method keeps for a model of 7 billion, computed: weights, gradients, the optimizer's averages."""
    with torch.device("meta"):
        seven = models.shape_only("llama-7b", device="meta")
    linear = sum(out * into for out, into in linear_shapes(seven))
    other = sum(p.numel() for p in seven.parameters()) - linear
    adapter = lora_parameters(linear_shapes(seven), rank)
    needed = {method: training_bytes(method, linear, other, adapter * (method != "full")) for method in THREE}
    looks = {
        "weights": {"color": plots.COLORS[0]},
        "gradients": {"color": plots.COLORS[2], "hatch": "//"},
        "optimizer": {"color": "white", "hatch": ".."},
    }
    _, ax = plt.subplots(figsize=(8, 2.6))
    left, names = dict.fromkeys(THREE, 0.0), [WORDS[method] for method in THREE]
    for kind, look in looks.items():
        widths = [needed[method][kind] / 1e9 for method in THREE]
        ax.barh(names, widths, left=list(left.values()), edgecolor=plots.COLORS[0], label=kind, **look)
        left = {method: start + width for (method, start), width in zip(left.items(), widths)}
    for place, (method, gigabytes) in enumerate(left.items()):
        results.metric(f"{method}.training_gb.7b", gigabytes, "GB", kind="predicted")
        ax.annotate(f"{gigabytes:.0f} GB", (gigabytes, place), xytext=(5, 0), textcoords="offset points", va="center")
    ax.set(title="What fine-tuning a model of 7 billion keeps in memory (computed)")
    ax.set(xlabel="memory (GB)", ylabel="method", xlim=(0, 1.12 * max(left.values())))
    ax.invert_yaxis()
    ax.legend()
    say(
        "LoRA saves the optimizer's part, QLoRA the weights' as well:",
        f"{left['full'] / left['qlora']:.0f} times less than every weight. Activations come on top.",
    )
