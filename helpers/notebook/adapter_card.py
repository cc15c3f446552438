"""What the shipped adapter's card says: what it took, how good it was, the losses on the way (notebook 03)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

import matplotlib.pyplot as plt

from helpers.notebook.sentences import say


def runs_of(card: Mapping) -> list[Mapping]:
    """The cards of all runs that made it, the first one first: a run may go on with what another left."""
    before = card.get("began_with")
    return [*(runs_of(before) if before else []), card] if card else []


def losses_of(card: Mapping) -> list[float]:
    """The losses that a card keeps, those of the training that it went on from first."""
    of_runs = (run.get("loss", []) for run in runs_of(card))
    return [loss for losses in of_runs for loss in (losses if isinstance(losses, list) else [losses])]


def show_card(card: Mapping) -> None:
    """What the shipped adapter took and how good it was, as its card says."""
    if card:
        print(f"The shipped adapter: {card.get('what', 'LoRA on the base')}")
    for number, run in enumerate(runs_of(card), 1):
        a = run["arguments"]
        rate = run["tokens"] * run["steps"] / _steps_of(run) / run["seconds"]
        hours, where = run["seconds"] / 3600, (run.get("machine") or {}).get("accelerator") or "a CPU"
        took = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
        print(f"run {number}: {took} on {where}, {run['steps']} steps of", end=" ")
        print(f"{a['per_device_train_batch_size']} rows of {a['max_seq_length']} tokens, {rate:.0f} tokens/s;", end=" ")
        print(f"r = {a['lora_r']}, alpha = {a['lora_alpha']:g}, lr {a['lr']:g}, {a['lr_scheduler_type']}")
    for about, share in (card.get("execution_accuracy") or {}).items():
        print(f"right, {about}: {share:.1%}")
    if card.get("right_by_kind"):
        kinds = "; ".join(f"{kind} {counts}" for kind, counts in card["right_by_kind"].items())
        say(f"right by kind, validation questions: {kinds}")
    if card.get("fails_on"):
        print("fails on:", card["fails_on"])


def _steps_of(run: Mapping) -> float:
    """The steps that all of a run's tokens take: one epoch's."""
    return max(1.0, run["rows"] / run["arguments"]["per_device_train_batch_size"])


def draw_losses(own: Sequence[float], card: Mapping) -> None:
    """The loss of the training here, step by step, and the losses that the shipped adapter's card keeps."""
    _, ax = plt.subplots(figsize=(8, 3))
    ax.plot(range(1, len(own) + 1), own, label="trained here", markevery=max(1, len(own) // 10))
    kept = losses_of(card)
    if len(kept) > 4:  # a curve, over its own steps
        steps = sum(run["steps"] for run in runs_of(card))
        places = [steps * (n + 1) / len(kept) for n in range(len(kept))]
        ax.plot(places, kept, "--", marker="", label="the shipped adapter")
        ax.set_xscale("log")
    elif kept:
        ax.axhline(kept[-1], color="#555555", linestyle=":", marker="", label="the shipped adapter's last")
    ax.set(title="The loss while it learns", xlabel="training (steps)", ylabel="loss (nats per token)")
    ax.legend()
    first, last = mean(own[:2]), mean(own[-2:])
    ending = f"; the shipped adapter ended at {kept[-1]:.3f}." if kept else "."
    say(
        f"Here it fell from {first:.2f} to {last:.2f} in {len(own)} steps{ending}",
        "A loss says how well the training's answers are expected, not how many of a test's are right.",
    )
