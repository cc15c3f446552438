"""How much is measured under each profile, and how long a notebook may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sizes:
    """How many prompts a profile takes: for answers and identity, for times, and of freshly generated questions."""

    answers: int
    timed: int
    generated: int
    rounds: int  # of each timing that is repeated
    shapes: tuple[str, ...]  # random shapes whose steps are timed


SIZES = {
    "smoke": Sizes(8, 4, 8, 3, ("llama-50m", "llama-150m")),
    "cpu": Sizes(100, 40, 100, 10, ("llama-50m", "llama-150m", "llama-300m", "llama-500m")),
    "full": Sizes(450, 150, 1000, 20, ("llama-50m", "llama-150m", "llama-300m", "llama-500m")),
    "gpu": Sizes(450, 100, 1000, 20, ("llama-300m", "llama-1b", "llama-7b", "mistral-7b")),
}


@dataclass(frozen=True)
class Profile:
    """`cell_timeout` in seconds for one cell; `minutes` is the budget of a notebook, None where there is no bound."""

    cell_timeout: int
    minutes: float | None
    longer: Mapping[str, float] = field(default_factory=dict)
    offline: bool = True

    def budget(self, number: str) -> float | None:
        """Minutes that the notebook may take."""
        return self.longer.get(number, self.minutes)


PROFILES = {
    "smoke": Profile(cell_timeout=600, minutes=1.5),
    "cpu": Profile(3600, 5, {"00": 10, "03": 10, "07": 10, "12": 10, "08": 15}),
    "full": Profile(12 * 3600, None),
    "gpu": Profile(3600, None, offline=False),
}
