"""Where a speculated step's time goes: the model, the heads, and the rest (notebook 08)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from helpers.decoding.generate import steps
from helpers.decoding.medusa import Medusa, MedusaHeads, Tree


class Stopwatch:
    """Stands in for something that is called, and adds up what its calls take."""

    def __init__(self, timed):
        self.timed, self.seconds = timed, 0.0

    def __call__(self, *given, **named):
        began = time.perf_counter()
        try:
            return self.timed(*given, **named)
        finally:
            self.seconds += time.perf_counter() - began

    def __getattr__(self, name: str):
        return getattr(self.timed, name)


@dataclass(frozen=True)
class StepBreakdown:
    """Mean seconds of a decode step: the model's forward, the heads, and all else (top-k, tree, cache, loop)."""

    forward: float
    heads: float
    rest: float


def step_breakdown(model, heads: MedusaHeads, tree: Tree, prompts: Sequence[Sequence[int]]) -> StepBreakdown:
    """The parts of decode steps over some prompts (token ids), on a CPU, whose clock waits for nobody."""
    total, count, parts = 0.0, 0, {"model": 0.0, "heads": 0.0}
    for prompt in prompts:
        timed = {"model": Stopwatch(model), "heads": Stopwatch(heads)}
        recorded = steps(timed["model"], prompt, proposer=Medusa(timed["heads"], tree))
        next(recorded)  # the prefill
        before = {name: watch.seconds for name, watch in timed.items()}
        decode = list(recorded)
        total, count = total + sum(step.seconds for step in decode), count + len(decode)
        for name, watch in timed.items():
            parts[name] += watch.seconds - before[name]
    each = max(1, count)
    return StepBreakdown(parts["model"] / each, parts["heads"] / each, (total - parts["model"] - parts["heads"]) / each)
