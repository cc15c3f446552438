"""What a training of heads shows: its loss, and how often each head is right (notebook 08)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from helpers.measuring.quality import wilson
from helpers.notebook.results import Results
from helpers.speculation.tree_choice import Ranks

PAPER = ("the paper's heads on Vicuna-7B, as its authors' code reports them", (0.56, 0.32, 0.20, 0.15, 0.12))


def show_training(results: Results, folder: Path) -> None:
    """The loss while the heads of this folder learned, each head's accuracy by the guesses that count, and the time
    that all of it took; writes `medusa.train_seconds` and the accuracies."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    _, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2))
    left.plot(report["losses"], marker="")
    left.set(title="The heads' loss while they learn", xlabel="step (count)", ylabel="weighted cross-entropy (nats)")
    for i, top in enumerate(report["accuracy"][-1], 1):
        right.plot(range(1, len(top) + 1), top, label=f"head {i}, token t+{i + 1}")
    title = "How often a head's k best guesses hold what came"
    right.set(title=title, xlabel="k (guesses)", ylabel="share of positions", ylim=(0, 1))
    right.legend(fontsize=8, loc="upper center", ncols=3)  # above the lines
    results.metric("medusa.train_seconds", report["seconds"], "s")
    note_accuracy(results, report["accuracy"][-1], "own")
    print(f"Trained in {report['seconds']:.0f} s, the model's own answers and their hidden states included.")
    show_accuracy(report["accuracy"][-1], "trained here")


def show_accuracy(shares: Sequence[Sequence[float]], whose: str) -> None:
    """Top 1 and top 5 of each head in a line, and the paper's beside them."""
    top1, top5 = (", ".join(f"{top[place]:.2f}" for top in shares) for place in (0, -1))
    print(f"{whose}: best guess right {top1}; among the best {len(shares[0])} {top5}", end=" ")
    print(f"(head 1 to {len(shares)})")
    print(f"{PAPER[0]}: {', '.join(f'{share:.2f}' for share in PAPER[1])}")


def note_accuracy(results: Results, shares: Sequence[Sequence[float]], whose: str) -> None:
    """Write each head's share of positions at which its best guess, and its best five, hold what came."""
    for i, top in enumerate(shares, 1):
        results.metric(f"medusa.head_accuracy.{whose}.head_{i}", top[0], "share")
        results.metric(f"medusa.head_accuracy.{whose}.top_5.head_{i}", top[-1], "share")


def show_head_accuracy(results: Results, ranks: Sequence[Ranks], count: int) -> None:
    """Top 1 and top 5 of each of `count` heads over these answers, with Wilson's intervals; writes them."""
    shares = []
    for i in range(count):
        ranked = [position[i] for answer in ranks for position in answer if len(position) > i]
        if not ranked:
            continue  # no answer goes so far
        right = [sum(rank < k for rank in ranked) for k in range(1, 6)]
        for key, num_right in (("", right[0]), (".top_5", right[-1])):
            share, (low, high) = num_right / len(ranked), wilson(num_right, len(ranked))
            ends = dict(low=min(low, share), high=max(high, share), n=len(ranked))
            results.metric(f"medusa.head_accuracy{key}.head_{i + 1}", share, "share", **ends)
        shares.append([n / len(ranked) for n in right])
    if not shares:
        print("No answer is long enough to judge a head.")
        return
    show_accuracy(shares, f"The heads that go on, {sum(map(len, ranks))} positions")
    if shares[0][0] < PAPER[1][0]:
        print("The first head is right less often than the paper's: this base is small, and nobody prepared it.")
    else:
        print("The first head is right at least as often as the paper's: SQL is easier to foresee than chat.")
