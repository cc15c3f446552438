"""What collectives cost: a latency for each message, and bytes over a bandwidth (notebook 06).

Hockney 1994; Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations in MPICH", 2005.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helpers.errors import CourseError
from helpers.parallel.rings import ring_seconds


@dataclass(frozen=True)
class Link:
    """Seconds until a message arrives, however short, and bytes per second of a long one."""

    latency: float
    bandwidth: float

    def all_reduce(self, num_bytes: float, ranks: int) -> float:
        """Seconds of a ring all-reduce of so many bytes."""
        return ring_seconds(num_bytes, ranks, self.latency, self.bandwidth)

    def all_gather(self, num_bytes: float, ranks: int) -> float:
        """Seconds until every rank has all of the `num_bytes`, of which each had an equal part: half of a ring's way;
        of a reduce-scatter, too."""
        return self.all_reduce(num_bytes, ranks) / 2

    def send(self, num_bytes: float) -> float:
        """Seconds of one message."""
        return self.latency + num_bytes / self.bandwidth


def fit_link(times: Sequence[tuple[int, int, float]]) -> Link:
    """The link that explains measured all-reduces, (bytes, ranks, seconds) each, with the least relative errors.

    Raises:
        CourseError: fewer than two sizes.
    """
    if len({num_bytes for num_bytes, _, _ in times}) < 2:
        raise CourseError("A latency and a bandwidth need all-reduces of two sizes at least.")
    messages = np.array([[2 * (n - 1), 2 * (n - 1) / n * size] for size, n, _ in times])
    seconds = np.array([each for _, _, each in times])
    relative = messages / seconds[:, None]
    found, *_ = np.linalg.lstsq(relative, np.ones(len(times)), rcond=None)
    if min(found) < 0:  # one of the two can't be seen: the other explains all
        one = int(found.argmax())
        alone = relative[:, one]
        found = np.zeros(2)
        found[one] = alone.sum() / (alone @ alone)
    latency, per_byte = map(float, found)
    return Link(latency, 1 / per_byte if per_byte else float("inf"))
