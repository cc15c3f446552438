"""How much is measured under each profile, and how long a notebook may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """How many prompts are taken: for answers and identity, for times, and of freshly generated questions; how often a
    timing is repeated; the random shapes whose steps are timed. One cell may take `cell_timeout` seconds, a notebook
    `minutes` (None: no bound, or under `cpu` what its own source's header says)."""

    answers: int
    timed: int
    generated: int
    rounds: int
    shapes: tuple[str, ...]
    cell_timeout: int = 3600
    minutes: float | None = None
    offline: bool = True


SMALL = ("llama-50m", "llama-150m")
LARGE = (*SMALL, "llama-300m", "llama-500m")
OF_A_GPU = ("llama-300m", "llama-1b", "llama-7b", "mistral-7b")
PROFILES = {
    "smoke": Profile(answers=8, timed=4, generated=8, rounds=3, shapes=SMALL, cell_timeout=600, minutes=1.5),
    "cpu": Profile(answers=100, timed=40, generated=100, rounds=10, shapes=LARGE),
    "full": Profile(answers=450, timed=150, generated=1000, rounds=20, shapes=LARGE, cell_timeout=12 * 3600),
    "gpu": Profile(answers=450, timed=100, generated=1000, rounds=20, shapes=OF_A_GPU, offline=False),
}


@dataclass(frozen=True)
class StartSizes:
    """What notebook 00 takes: prompts whose answers are compared token by token, prompts for bfloat16's times, test
    questions for the base, handwritten questions, prompts for the same program twice; the longest answer of the
    fine-tuned model and of the base; how the fastest linears are chosen (packed_linear.install: 0 measures nothing);
    the tokens of the timed steps. And 00b: tokens that are written without a cache, random series of operations."""

    identity: int
    half: int
    base: int
    handwritten: int
    twice: int
    longest: int
    longest_prose: int
    turns: int
    warmup: int
    num_tokens: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    without_cache: int = 40
    series: int = 1000


START = {
    "smoke": StartSizes(
        identity=2,
        half=2,
        base=2,
        handwritten=3,
        twice=2,
        longest=20,
        longest_prose=48,
        turns=0,
        warmup=1,
        num_tokens=(1, 8, 32),
        without_cache=6,
        series=40,
    ),
    "cpu": StartSizes(40, 20, 60, 120, 8, 128, 192, 3, 2, series=300),
    "full": StartSizes(450, 150, 450, 120, 20, 256, 256, 5, 2),
    "gpu": StartSizes(450, 100, 450, 120, 20, 256, 256, 5, 2),
}
