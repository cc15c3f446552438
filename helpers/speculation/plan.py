"""Which guessers share the tree, and what a token costs with them: chosen on validation, kept as a file (notebook 08).

What a token costs depends on the tree, and the tree on what a token costs: the two are computed in turns until they
agree. That is the method of Dinkelbach (1967) for the largest ratio, here of tokens to seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.decoding.proposals import MAX_GUESSES
from helpers.decoding.proposer import Proposer
from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.speculation.cost import interpolated
from helpers.speculation.node_chances import Chances, Position, count_chances
from helpers.speculation.replay import ReplayedStep, mean_emitted, replay
from helpers.speculation.worthwhile import NodeChoice, WorthwhileTree

ROUNDS = 4  # after which the price of a token changes no more


@dataclass(frozen=True)
class Costs:
    """Seconds on this machine: of a prefill, and of a whole decode step by the tokens that it reads (`step`), guessing
    left out."""

    prefill: float
    step: Mapping[int, float]

    def step_of(self, num_tokens: int) -> float:
        """Seconds of a step that reads so many tokens; between two measured ones on a straight line."""
        return interpolated(self.step)(num_tokens)

    def decode(self, steps: Iterable[ReplayedStep], asking: float = 0.0) -> float:
        """What these steps take, with `asking` seconds for the guessers in each."""
        seconds = interpolated(self.step)
        return sum(seconds(1 + step.guesses) + asking for step in steps)

    def speedup(self, answers: Sequence[Sequence[ReplayedStep]], asking: float) -> float:
        """How many times as fast whole requests are as with plain decoding, prefill and all."""
        tokens = sum(step.emitted for steps in answers for step in steps)
        prefill = self.prefill * len(answers)
        guessed = prefill + self.decode((step for steps in answers for step in steps), asking)
        return (prefill + tokens * self.step_of(1)) / guessed


@dataclass(frozen=True)
class Plan:
    """A tree of several guessers as validation chose it, and what it promises there: times as fast (a whole request),
    tokens a step, guesses a step."""

    guessers: tuple[str, ...]
    chances: Chances
    step: dict[int, float]
    token_seconds: float
    speedup: float
    tokens_per_step: float
    guesses_per_step: float

    def tree(self, guessers: Sequence[Proposer]) -> WorthwhileTree:
        """The proposer, of guessers in the plan's order."""
        if len(guessers) != len(self.guessers):
            raise CourseError(f"This plan is for {', '.join(self.guessers)}: give one guesser for each.")
        choice = NodeChoice(self.chances, interpolated(self.step), self.token_seconds, _largest(self.step))
        return WorthwhileTree(guessers, choice)

    def save(self, path: Path) -> Path:
        """Write it as JSON, for another process."""
        document = vars(self) | {"chances": [[*kind, chance] for kind, chance in self.chances.items()]}
        return write_whole(path, json.dumps(document) + "\n")

    @classmethod
    def load(cls, path: Path) -> Plan:
        """The plan in a file that `save` wrote."""
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            chances = {(guesser, tuple(label)): chance for guesser, label, chance in document.pop("chances")}
            step = {int(n): seconds for n, seconds in document.pop("step").items()}
            return cls(chances=chances, step=step, **document | {"guessers": tuple(document["guessers"])})
        except (OSError, ValueError, TypeError, KeyError):
            raise CourseError(f"There is no plan of a tree to read in {path}: notebook 08 makes it.") from None


def make_plan(
    names: Sequence[str],
    counted: Sequence[Sequence[Position]],
    tried: Sequence[Sequence[Position]],
    costs: Costs,
    asking: float,
) -> Plan:
    """Count the chances on one half of the validation answers, and find what a token costs on the other.

    Args:
        names: of the guessers, as `guessers.py` knows them.
        counted, tried: records (replay.py) of these guessers.
        asking: seconds a step for what all of them take to guess.
    """
    chances = count_chances(position for answer in counted for position in answer)
    token_seconds, most = costs.step_of(1), _largest(costs.step)
    for _ in range(ROUNDS):
        steps = replay(tried, NodeChoice(chances, costs.step_of, token_seconds, most).tree)
        every = [step for answer in steps for step in answer]
        if every:
            token_seconds = costs.decode(every, asking) / sum(step.emitted for step in every)
    guesses = sum(step.guesses for step in every) / max(1, len(every))
    promise = costs.speedup(steps, asking), mean_emitted(steps), guesses
    return Plan(tuple(names), chances, dict(costs.step), token_seconds, *promise)


def _largest(step: Mapping[int, float]) -> int:
    """The most guesses whose price is known: beyond the steps that were measured nothing is."""
    return min(max(step) - 1, MAX_GUESSES)
