"""How much notebook 11b takes under each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackendSizes:
    """How much of everything."""

    prompts: int  # that each server is asked, again and again
    longest: int  # tokens of an answer
    users: tuple[int, ...]  # at a time
    turns: int  # of each server
    beams: int  # prompts of the beam searches that are compared
    rounds: int  # steps of the offloaded model
    shape: str  # that is offloaded
    vllm: bool  # whether vLLM's server is started: a minute each time
    experts: int  # of the mixture; 0: it is left out


BACKENDS = {
    "smoke": BackendSizes(3, 8, (1, 2), 2, 2, 2, "llama-tiny", False, 0),
    "cpu": BackendSizes(64, 64, (1, 16), 3, 8, 7, "llama-300m", True, 8),
    "full": BackendSizes(64, 96, (1, 4, 16), 5, 50, 15, "llama-500m", True, 8),
    "gpu": BackendSizes(64, 96, (1, 16, 64), 5, 50, 15, "llama-500m", True, 8),
}
