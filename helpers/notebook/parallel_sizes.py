"""How much notebooks 06 and 06b take under each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ParallelSizes:
    """How much of everything."""

    layers: int | None  # the model's first ones; None: all
    ranks: tuple[int, ...]  # how many are tried
    prompts: int  # compared with the whole model's answers
    longest: int  # tokens of an answer
    shape: str  # of random weights, whose steps are timed
    rounds: int  # steps of each way
    training: int  # steps
    messages: tuple[int, ...]  # bytes of all-reduces that are timed
    repeats: int  # of each
    cases: int  # random ones of each collective
    in_groups: int  # ranks that exchange in groups
    vllm: tuple[int, ...]  # ranks that it is tried on


MESSAGES = tuple(4**k for k in range(4, 13))  # from 256 bytes to 16 MiB

PARALLEL = {
    "smoke": ParallelSizes(2, (2, 3), 2, 4, "llama-tiny", 3, 2, MESSAGES[::4], 3, 5, 4, ()),
    "cpu": ParallelSizes(None, (2, 3, 4), 4, 12, "llama-300m", 15, 4, MESSAGES, 30, 50, 8, (2, 3)),
    "full": ParallelSizes(None, (2, 3, 4), 12, 24, "llama-500m", 40, 10, MESSAGES, 200, 500, 8, (2, 3)),
    "gpu": ParallelSizes(None, (2,), 32, 64, "llama-8b", 40, 10, MESSAGES, 200, 500, 4, (2,)),
}
