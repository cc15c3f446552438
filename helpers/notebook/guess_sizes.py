"""How much notebook 07 takes under each profile, and which guessers it tries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helpers.profiling.arms import Arm

NUM_TOKENS = (1, 2, 3, 4, 5, 6, 8, 11, 16, 24, 32)  # of the steps that are timed
GREEDY, COMBINED = "greedy", "combined"
TRAINED = "draft_model"  # the one guesser that somebody has to train


@dataclass(frozen=True)
class GuessSizes:
    """Prompts on which lengths are chosen, and transformers' settings; answers compared token by token in float32;
    prompts that each of the fresh processes times, after a warm-up; handwritten questions, prompts in prose; the
    longest answer; how the fastest linears are chosen (packed_linear.install); draws of the test of sampling; arguments
    of this notebook's own distillation; how many candidates of each guesser are tried (None: all)."""

    validation: int
    tuning: int
    identity: int
    timed: int
    runs: int
    warmup: int
    people: int
    prose: int
    longest: int
    turns: int
    draws: int
    training: Mapping[str, object]
    tried: int | None = None


SIZES = {
    "smoke": GuessSizes(
        validation=2,
        tuning=1,
        identity=2,
        timed=2,
        runs=1,
        warmup=1,
        people=2,
        prose=1,
        longest=12,
        turns=0,
        draws=20_000,
        training={"max_examples": 2, "epochs": 2, "warmup_steps": 1},  # two steps
        tried=1,
    ),
    "cpu": GuessSizes(6, 3, 16, 10, 3, 1, 6, 3, 128, 2, 30_000, {"max_examples": 100, "epochs": 1}),
    "full": GuessSizes(60, 8, 450, 100, 3, 2, 120, 50, 256, 5, 50_000, {"max_examples": 1000, "epochs": 2}),
    "gpu": GuessSizes(60, 8, 450, 100, 3, 2, 120, 50, 256, 5, 50_000, {"max_examples": 1000, "epochs": 2}),
}


def candidates(draft: str, tried: int | None = None) -> dict[str, list[Arm]]:
    """Each guesser in several lengths or shapes, as arms."""
    drafted = [(2, 0.0), (3, 0.0), (4, 0.5), (6, 0.7)]
    lengths = [(4, 1), (8, 1), (12, 2)]
    arms = {
        TRAINED: [dict(make=TRAINED, draft=draft, count=k, min_probability=p) for k, p in drafted],
        "prompt_lookup": [dict(make="prompt_lookup", count=n) for n in (3, 5, 8)],
        "bigram": [dict(make="bigram", count=n) for n in (1, 2)],
        "recycling": [dict(make="recycling", size=n) for n in (8, 16, 24)],
        "suffix.cold": [dict(make="suffix", count=n, shortest=m) for n, m in lengths],
        "suffix.warm": [dict(make="suffix", count=n, shortest=m, warm=True) for n, m in lengths],
    }
    return {name: some[:tried] for name, some in arms.items()}


def combinations(chosen: Mapping[str, Arm]) -> dict[str, Arm]:
    """Two guessers in one step, three ways."""
    suffix, recycling, draft = (chosen[name] for name in ("suffix.warm", "recycling", TRAINED))
    return {
        "suffix and recycling in one tree": dict(make="together", parts=[suffix, recycling]),
        "suffix, else the draft": dict(make="first_of", parts=[suffix, draft]),
        "suffix and bigrams in a relay": dict(make="relay", parts=[suffix, chosen["bigram"]], count=6),
    }
