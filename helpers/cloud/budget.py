"""What may be spent on AWS: an estimate first, a confirmation, and a limit that holds (notebook 12)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from helpers.cloud.prices import Prices
from helpers.errors import CourseError


@dataclass
class Budget:
    """Dollars that may be spent at most, the hours after which everything is deleted, and how many instances of which
    types are planned."""

    at_most: float
    hours: float
    planned: Mapping[str, int]
    prices: Prices = field(default_factory=Prices.read)
    taken: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def estimate(self) -> float:
        """Dollars if all that is planned runs for all the hours."""
        return sum(self._cost(kind, count, self.hours) for kind, count in self.planned.items())

    def __str__(self) -> str:
        plan = ", ".join(f"{count} x {kind}" for kind, count in self.planned.items())
        return f"{plan} for {self.hours:g} h: ${self.estimate:.2f} at most (prices of {self.prices.date}, us-east-1)"

    def confirm(self, ask: Callable[[str], str] = input) -> None:
        """Raises CourseError where the estimate is over the limit, or nobody says yes."""
        if self.estimate > self.at_most:
            raise CourseError(f"{self}, and you allow ${self.at_most:.2f}: set AT_MOST_DOLLARS, or plan less.")
        if os.environ.get("COURSE_AWS_CONFIRMED") == "yes":
            return
        try:
            answer = ask(f"{self}. Everything is deleted at the end. Type yes to go on: ")
        except (EOFError, RuntimeError, NotImplementedError):  # papermill: nobody is there
            answer = ""
        if answer.strip().lower() != "yes":
            raise CourseError("Nobody said yes, so nothing was sent: type it, or set COURSE_AWS_CONFIRMED=yes.")

    def take(self, instance_type: str, count: int, hours: float | None = None) -> float:
        """Count an endpoint or a job before it is created; returns its dollars.

        Raises:
            CourseError: it would go over the limit, or the hours are over: nobody would delete it then.
        """
        if time.monotonic() - self.began > 3600 * self.hours:
            raise CourseError(f"The {self.hours:g} hours are over, and nothing new is created: connect again.")
        cost = self._cost(instance_type, count, hours or self.hours)
        if self.taken + cost > self.at_most:
            raise CourseError(
                f"{count} x {instance_type} may cost ${cost:.2f}, beside ${self.taken:.2f} for what was created "
                f"before: more than the ${self.at_most:.2f} that you allow. Nothing was sent."
            )
        self.taken += cost
        return cost

    def _cost(self, instance_type: str, count: int, hours: float) -> float:
        return self.prices.of(instance_type) * count * hours
