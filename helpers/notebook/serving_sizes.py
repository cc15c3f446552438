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
