"""How much notebook 11 takes under each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServingSizes:
    """How much of everything."""

    layers: int | None  # the model's first ones; None: all
    longest: int  # tokens of an answer
    prompts: int  # whose answers are judged
    timed: int  # answers by the engine alone and by the server
    streams: int  # at a time
    chained: int  # prompts that are answered in parts, too
    beams: int  # prompts that are answered by a beam search, too
    loads: tuple[float, ...]  # of the most that the server answers
    requests: int  # of each load
    others: bool  # whether vLLM and llama.cpp take part
    turns: int  # in which the fastest linears are chosen


SERVING = {
    "smoke": ServingSizes(2, 12, 4, 2, 8, 2, 2, (0.25, 0.75, 1.5), 4, False, 0),
    "cpu": ServingSizes(None, 96, 100, 12, 64, 12, 24, (0.25, 0.5, 0.75, 1.0, 1.5), 64, True, 2),
    "full": ServingSizes(None, 128, 450, 40, 64, 450, 150, (0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5), 200, True, 5),
    "gpu": ServingSizes(None, 128, 450, 40, 64, 450, 150, (0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5), 400, True, 5),
}


@dataclass(frozen=True)
class BackendSizes:
    """How much of everything in notebook 11b."""

    prompts: int  # that each server is asked
    longest: int  # tokens of an answer
    users: tuple[int, ...]  # at a time
    beams: int  # prompts of the beam searches that are compared
    rounds: int  # steps of the offloaded model
    shape: str  # that is offloaded
    vllm: bool  # whether vLLM's server is started: a minute each time
    experts: int  # of the mixture; 0: it is left out


BACKENDS = {
    "smoke": BackendSizes(3, 8, (1, 2), 2, 2, "llama-tiny", False, 0),
    "cpu": BackendSizes(16, 64, (1, 16), 8, 7, "llama-300m", True, 8),
    "full": BackendSizes(64, 96, (1, 4, 16), 50, 15, "llama-500m", True, 8),
    "gpu": BackendSizes(64, 96, (1, 16, 64), 50, 15, "llama-8b", True, 8),
}
