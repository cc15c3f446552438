"""Confidence beside right answers, waiting over the load, and the way to a backend (notebook 11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from helpers.notebook import plots
from helpers.serving.calibration import Bin
from helpers.serving.load_test import Load


def draw_reliability(found: Sequence[Bin]) -> None:
    """The share of right answers over their confidence, by groups; the diagonal is what a calibrated model does."""
    _, ax = plt.subplots(figsize=(5.5, 4.2))
    least, most = min(one.confidence for one in found), max(one.count for one in found)
    left = max(0.0, least - 0.25 * (1 - least) - 0.005)
    ax.plot([left, 1], [left, 1], color="#555555", linestyle=":", marker="", label="calibrated")
    points = [(one.confidence, one.right) for one in found]
    ax.plot(*zip(*points, strict=True), color=plots.COLORS[0], marker="o", linestyle="", label="measured")
    ax.set(title=f"Is a confident answer right? ({len(found)} groups of up to {most})", ylim=(-0.05, 1.05))
    ax.set(xlabel="confidence (probability)", ylabel="right answers (share)", xlim=(left, 1 + 0.05 * (1 - left)))
    ax.legend()


def draw_loads(found: Mapping[float, Load]) -> None:
    """Throughput and waiting over the offered load."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.4))
    shares = [100 * share for share in found]
    rates = [load.request_throughput for load in found.values()]
    axes[0].plot(shares, rates, color=plots.COLORS[0], marker="o")
    axes[0].set(title="What is answered", ylabel="requests per second", ylim=(0, None))
    enough = min(len(load.samples) for load in found.values()) >= 100  # else p99 is the slowest one
    for place, name in enumerate(("p50", "p90", "p99") if enough else ("p50", "p90")):
        times = [load.statistics("time_to_first_token")[name] for load in found.values()]
        look = dict(color=plots.COLORS[place], marker=plots.MARKERS[place], linestyle=("-", "--", ":")[place])
        axes[1].plot(shares, times, label=name, **look)
    axes[1].set(title="How long people wait", ylabel="time to the first token (s)", yscale="log")
    axes[1].legend()
    for ax in axes:
        ax.set_xlabel("offered load (% of the most)")


def draw_questions() -> None:
    """`choose_backend` as a flowchart: the questions in their order, and where each answer leads."""
    questions = (
        ("AWS Neuron?", "NeuronX"),
        ("no GPU; and a Mac, at most 4 users,\nor too large?", "llama.cpp"),
        ("no GPU, many users?", "vLLM"),
        ("too large, one user?", "Accelerate"),
        ("on SageMaker?", "LMI"),
        ("several models?", "Ray Serve"),
        ("a model that stays, few users?", "TensorRT-LLM"),
    )
    _, ax = plt.subplots(figsize=(7.5, 5.2))
    box = dict(boxstyle="round", facecolor="white", edgecolor="#555555")
    end = dict(boxstyle="round", facecolor="#e8e8e8", edgecolor="#555555")
    arrow = dict(arrowstyle="->", color="#555555")
    for place, (question, name) in enumerate(questions):
        y = -place
        ax.annotate(name, (0.15, y), (1.15, y), bbox=end, va="center", ha="center", arrowprops=None)
        ax.annotate("", (0.9, y), (0.42, y), arrowprops=arrow)
        ax.text(0.66, y + 0.12, "yes", ha="center", fontsize=8)
        ax.text(0, y, question, bbox=box, ha="center", va="center", fontsize=9)
        ax.annotate("", (0, y - 0.7), (0, y - 0.3), arrowprops=arrow)
        ax.text(0.05, y - 0.5, "no", fontsize=8, va="center")
    ax.text(0, -len(questions), "vLLM", bbox=end, ha="center", va="center")
    ax.set(xlim=(-0.7, 1.5), ylim=(-len(questions) - 0.6, 0.6), title="Which server first?")
    ax.axis("off")
