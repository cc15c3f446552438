"""Where a speculated step's time goes: the model, the heads or the draft, and the rest (notebooks 07 and 08)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from helpers.decoding.generate import steps
from helpers.decoding.proposals import Proposal
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence


class Clocked(Proposer):
    """Asks a proposer for one sequence at a time, and keeps the seconds: what guessing costs inside the loop, where it
    reads what was accepted and the target's weights push its own out of the processor's caches.

    A draft's step measured by itself is too good (notebook 07 prints both).
    """

    def __init__(self, proposer: Proposer):
        self.proposer = proposer
        self.asked: set[int] = set()
        self.first: list[tuple[int, float]] = []  # (guesses, seconds) of a sequence's first call, the prompt read
        self.later: list[tuple[int, float]] = []

    def propose(self, sequences: list[Sequence], hidden: torch.Tensor) -> list[Proposal]:
        [sequence] = sequences
        began = time.perf_counter()
        proposals = self.proposer.propose(sequences, hidden)
        times = self.later if sequence.id in self.asked else self.first
        times.append((len(proposals[0].tokens), time.perf_counter() - began))
        self.asked.add(sequence.id)
        return proposals

    def release(self, sequence: Sequence) -> None:
        self.proposer.release(sequence)

    @property
    def guess_seconds(self) -> float:
        """Of one guess, once the prompt is read."""
        return sum(seconds for _, seconds in self.later) / max(1, sum(guesses for guesses, _ in self.later))

    @property
    def first_seconds(self) -> float:
        """What the first call for an answer takes beside its guesses: reading the prompt."""
        return max(0.0, median(seconds - guesses * self.guess_seconds for guesses, seconds in self.first))


class Stopwatch:
    """Adds up what a module's calls take."""

    def __init__(self):
        self.seconds = 0.0

    @contextmanager
    def on(self, module: nn.Module | Proposer, method: str = "forward") -> Iterator[Stopwatch]:
        """The watch runs while that method of the module, or of another object, does.

        It stands in the method's place: a module with hooks is called on a slower way, which would be timed, too.
        """
        own, called = vars(module).get(method), getattr(module, method)

        def timed(*args, **kwargs):
            began = time.perf_counter()
            try:
                return called(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        setattr(module, method, timed)
        try:
            yield self
        finally:
            delattr(module, method)
            if own is not None:
                setattr(module, method, own)


@dataclass(frozen=True)
class StepBreakdown:
    """Mean seconds of a decode step: the model's forward, guessing, and all else (mask, acceptance, cache, loop)."""

    forward: float
    guessing: float
    rest: float


def step_breakdown(model, proposer: Proposer | None, prompts: list[list[int]], **options) -> StepBreakdown:
    """The parts of decode steps over some prompts (token ids), on a CPU, whose clock waits for nobody; `options` as of
    `steps`. Guessing is all that the proposer does, whoever guesses: heads and the tree that is made of their guesses.
    """
    total, count, forward, guessing = 0.0, 0, Stopwatch(), Stopwatch()
    for prompt in prompts:
        recorded = steps(model, prompt, proposer=proposer, **options)
        next(recorded)  # the prefill, and the guesses after it
        with forward.on(model), guessing.on(proposer, "propose") if proposer else nullcontext():
            decode = list(recorded)
        total, count = total + sum(step.seconds for step in decode), count + len(decode)
    each = max(1, count)
    rest = total - forward.seconds - guessing.seconds
    return StepBreakdown(forward.seconds / each, guessing.seconds / each, rest / each)
