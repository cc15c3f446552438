"""How much notebook 12 takes under each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CloudSizes:
    """How much of everything."""

    steps: int  # of the job that fine-tunes
    examples: int  # that the job for the heads learns from
    prompts: int  # that both endpoints are asked
    longest: int  # tokens of an answer
    users: tuple[int, ...]  # at a time
    requests: int  # of each number of users


CLOUD = {
    "smoke": CloudSizes(2, 4, 3, 16, (1, 2), 4),
    "cpu": CloudSizes(8, 32, 60, 96, (1, 2, 4, 8, 16), 64),
    "full": CloudSizes(20, 64, 450, 128, (1, 2, 4, 8, 16), 90),
    "gpu": CloudSizes(200, 512, 450, 128, (1, 2, 4, 8, 16), 90),
}
