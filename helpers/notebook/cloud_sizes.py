"""How much notebook 12 takes under each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CloudSizes:
    """How much of everything."""

    prompts: int  # that both endpoints are asked
    longest: int  # tokens of an answer
    users: tuple[int, ...]  # at a time, for the price over concurrency
    requests: int  # of each number of users
    steps: int  # of the training jobs
    base: bool  # whether the base has an endpoint, too


CLOUD = {
    "smoke": CloudSizes(3, 8, (1, 2), 4, 1, False),
    "cpu": CloudSizes(60, 96, (1, 4, 16), 32, 4, True),
    "full": CloudSizes(450, 128, (1, 2, 4, 8, 16), 64, 20, True),
    "gpu": CloudSizes(450, 128, (1, 2, 4, 8, 16), 64, 200, True),
}
