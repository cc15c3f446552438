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
