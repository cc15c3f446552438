"""Where a speculated step's time goes: the model, the heads or the draft, and the rest (notebooks 07 and 08)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from helpers.decoding.generate import steps
from helpers.speculation.medusa import Medusa, Tree
from helpers.speculation.medusa_heads import MedusaHeads


class Clocked:
    """Asks a proposer with a stopwatch: what guessing costs inside the loop, where it reads what was accepted and the
    target's weights push its own out of the caches.

    A draft's step measured by itself is too good (notebook 07 prints both).
    """

    def __init__(self, proposer):
        self.proposer, self.wants_hidden = proposer, getattr(proposer, "wants_hidden", True)
        self.known: list[int] = []
        self.first: list[tuple[int, float]] = []  # (guesses, seconds) of the first call for an answer, the prompt read
        self.later: list[tuple[int, float]] = []

    def propose(self, tokens, hidden=None):
        same_answer = bool(self.known) and list(tokens[: len(self.known)]) == self.known
        began = time.perf_counter()
        proposal = self.proposer.propose(tokens, hidden)
        (self.later if same_answer else self.first).append((len(proposal.tokens), time.perf_counter() - began))
        self.known = list(tokens)
        return proposal

    @property
    def guess_seconds(self) -> float:
        """Of one guess, once the prompt is read."""
        return sum(seconds for _, seconds in self.later) / max(1, sum(guesses for guesses, _ in self.later))

    @property
    def first_seconds(self) -> float:
        """What the first call for an answer takes beside its guesses: reading the prompt."""
        return max(0.0, median(seconds - guesses * self.guess_seconds for guesses, seconds in self.first))


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
