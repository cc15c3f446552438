"""How much notebooks 06 and 06b take under each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ParallelSizes:
    """The model's first layers (None: all); how many ranks are tried; prompts and tokens of an answer that are compared
    with the whole model's; a random shape whose steps are timed, and steps of each way; steps of training; sizes of
    all-reduces (bytes), and how often each; random cases of each collective; whether vLLM takes part."""

    layers: int | None
    ranks: tuple[int, ...]
    prompts: int
    longest: int
    shape: str
    rounds: int
    training: int
    messages: tuple[int, ...]
    repeats: int
    cases: int
    vllm: bool


MESSAGES = tuple(4**k for k in range(4, 13))  # from 256 bytes to 16 MiB

PARALLEL = {
    "smoke": ParallelSizes(2, (2, 3), 2, 4, "llama-tiny", 3, 2, MESSAGES[:3], 3, 5, False),
    "cpu": ParallelSizes(None, (2, 3, 4), 4, 16, "llama-300m", 15, 4, MESSAGES, 30, 50, True),
    "full": ParallelSizes(None, (2, 3, 4), 32, 64, "llama-500m", 40, 10, MESSAGES, 200, 500, True),
    "gpu": ParallelSizes(None, (2, 4), 32, 64, "llama-8b", 40, 10, MESSAGES, 200, 500, True),
}
