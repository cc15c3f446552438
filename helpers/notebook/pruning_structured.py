"""Heads and channels removed from the fine-tuned model, and a short training after it (notebook 04)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import matplotlib.pyplot as plt
from torch import nn

from helpers import models
from helpers.errors import CourseError
from helpers.files import build_root
from helpers.measuring.memory import weight_bytes
from helpers.measuring.quality import logits_of, paired, perplexity
from helpers.notebook import plots
from helpers.notebook.lesson import Lesson
from helpers.notebook.pruning_quality import Outcome, note_change
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.notebook.tuning import train_adapter
from helpers.text_to_sql.dataset import load_split
from helpers.weights.pruning.structured import Importance, Pairs, Plan, check_structure, smaller
from helpers.weights.quantization.calibration import answer_pairs


def can_be_cut(model: nn.Module) -> bool:
    """Whether heads and channels can be removed from this kind of model; says why where they can't."""
    try:
        check_structure(model)
    except CourseError as reason:
        print(f"Left out: {reason}")
        return False
    return True


def training_pairs(tokenizer, count: int) -> tuple[Pairs, Pairs]:
    """Twice `count` pairs of prompt and answer from all over the training split: to take gradients of, to choose by."""
    examples = load_split("train")
    pairs = answer_pairs(tokenizer, examples[:: max(1, len(examples) // (2 * count))][: 2 * count])
    return pairs[::2], pairs[1::2]


def draw_importance(matters: Importance) -> None:
    """How unequal heads and channels are: each layer's, sorted, as shares of their mean."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.2))
    heads, channels = (each / each.mean(1, keepdim=True) for each in (matters.kv_heads, matters.channels))
    for head in range(heads.shape[1]):
        look = {"marker": plots.MARKERS[head % 5], "color": plots.COLORS[head % 5], "linestyle": ""}
        label = f"KV head {head}" if heads.shape[1] <= 5 else None
        axes[0].plot(range(1, len(heads) + 1), heads[:, head].cpu(), label=label, **look)
    axes[0].set(title="KV heads, with the heads that share them", xlabel="layer (count)")
    axes[0].set(ylabel="importance (mean = 1)", ylim=(0, None))
    axes[0].legend(fontsize=9)
    ranks = channels.sort(dim=1).values.cpu()
    for label, quantile, style in (
        ("9 in 10 layers are above", 0.1, ":"),
        ("middle layer", 0.5, "-"),
        ("1 in 10 layers is above", 0.9, "--"),
    ):
        line = ranks.quantile(quantile, dim=0)
        axes[1].plot([100 * i / len(line) for i in range(len(line))], line, style, marker="", label=label)
    axes[1].set(title="Channels of the MLPs, the least important first", xlabel="channels (%)")
    axes[1].set(ylabel="importance (mean = 1)", yscale="log")
    axes[1].legend(fontsize=9)
    least = ranks[:, : round(0.3 * ranks.shape[1])].sum() / ranks.sum()
    print(f"The least important 30% of the channels have {least:.0%} of all importance.")


def compare_plans(model: nn.Module, matters: Importance, plans: Mapping[str, Plan], pairs: Pairs) -> str:
    """What stays under each plan, and the perplexity of answers to choose by; the best one's name."""
    before, perplexities = perplexity(logits_of(model), pairs), {}
    print(f"perplexity of {len(pairs)} training answers before: {before:.3f}")
    for name, stays in plans.items():
        small = smaller(model, matters, stays)
        perplexities[name] = perplexity(logits_of(small), pairs)
        share = 1 - weight_bytes(small) / weight_bytes(model)
        print(f"{name:20} {stays.kv_heads} KV heads and {stays.channels:,} channels stay in each layer:", end=" ")
        print(f"{stays.removed:.1%} of the layers' weights go")
        print(f"{'':20} ({share:.1%} of the whole model's); perplexity {perplexities[name]:.3f}")
    best = min(perplexities, key=perplexities.get)
    print(f"On go {best!r}: least perplexity, on training answers. Test questions have no say in it.")
    return best


def recover(lesson: Lesson, small: nn.Module, tokenizer, learning_rate: float, **arguments: object) -> nn.Module:
    """The smaller model after a short training of the LoRA of notebook 03, merged: trained by the same script, from a
    folder that loads as any model does."""
    folder = build_root() / "artifacts" / "structured"
    small.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    on_disk = replace(lesson, model_id=str(folder))
    made = train_adapter(on_disk, learning_rate, merge_weights=True, **arguments)
    report = json.loads((made / "report.json").read_text())
    losses = report["loss"]
    print(f"{report['steps']} steps in {report['seconds']:.0f} s, loss {losses[0]:.3f}, at the end {losses[-1]:.3f}")
    lesson.results.metric("pruning.recovery_seconds", report["seconds"], "s", n=report["steps"])
    return models.load(made / "merged", small.dtype, lesson.device)[0]


def show_structured(results: Results, dense: Outcome, cut: Outcome, recovered: Outcome) -> None:
    """Right answers and perplexity before the cut, after it, and after the training; writes the metrics."""
    keys = {"dense": None, "cut": "structured_30_untrained", "cut and trained": "structured_30"}
    for (name, key), one in zip(keys.items(), (dense, cut, recovered)):
        low, high = one.judged.interval
        change = paired(dense.judged.right, one.judged.right)
        beside = "" if key is None else f"; {change.fixed} fixed, {change.broken} broken"
        counts = f"{sum(one.judged.right):3} of {change.n} right ({low:.0%} to {high:.0%})"
        print(f"{name:16} {counts}, perplexity {one.perplexity:8.3f}{beside}")
        if key:
            note_change(results, key, one, change)
    back, left = (paired(one.judged.right, recovered.judged.right) for one in (cut, dense))
    helped = (
        "The training brought answers back"
        if back.real and back.fixed > back.broken
        else ("So short a training brings no answers back that could be counted")
    )
    worse = left.real and left.broken > left.fixed
    say(
        f"{helped} ({back}).",
        "It is still worse than what it was cut from."
        if worse
        else "It can't be told from what it was cut from, by so many answers.",
    )
