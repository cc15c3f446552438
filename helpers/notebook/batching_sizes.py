"""How much notebook 05 takes under each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchingSizes:
    """The model's first layers (None: all); requests of the trace, and the longest answer (None: as in the trace);
    sequences at a time; sizes of static batches; replays of each arm; of other engines (0: they take no part), how many
    requests of the trace they get, and how many `generate`, which takes minutes for a batch; users who ask one after
    the other, and requests of all of them together; prompts compared with what they get alone, in float32; random
    schedules on a tiny model; how the fastest linears are chosen (packed_linear.install)."""

    layers: int | None
    requests: int
    longest: int | None
    seats: int
    static: tuple[int, ...]
    runs: int
    other_runs: int
    other_requests: int
    generate_requests: int
    users: tuple[int, ...]
    by_users: int
    exact: int
    schedules: int
    turns: int


BATCHING = {
    "smoke": BatchingSizes(2, 6, 6, 4, (2, 4), 2, 0, 0, 0, (1, 2), 4, 3, 5, 0),
    "cpu": BatchingSizes(None, 32, None, 16, (8, 16), 3, 2, 12, 6, (1, 2, 4, 8, 16), 24, 12, 100, 2),
    "full": BatchingSizes(None, 192, None, 16, (4, 8, 16, 32), 5, 3, 64, 16, (1, 2, 4, 8, 16), 96, 100, 1000, 5),
    "gpu": BatchingSizes(None, 192, None, 64, (16, 32, 64), 5, 3, 64, 64, (1, 2, 4, 8, 16, 32), 192, 100, 1000, 5),
}
