"""How much notebook 05 takes under each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchingSizes:
    """How much of everything."""

    layers: int | None  # the model's first ones; None: all
    requests: int  # of the trace
    longest: int | None  # tokens of an answer; None: as in the trace
    seats: int  # sequences at a time
    static: tuple[int, ...]  # sizes of batches that are tried
    runs: int  # replays of each arm
    other_runs: int  # of other engines; 0: they take no part
    other_requests: int  # of the trace that they get
    generate_requests: int  # that `generate` gets: it takes minutes for a batch
    other_seats: int  # sequences at a time, theirs and ours beside them
    users: tuple[int, ...]  # who ask one question after the other
    by_users: int  # requests of all of them together
    exact: int  # requests compared with what they get alone, in float32
    schedules: int  # random ones, on a tiny model
    turns: int  # in which the fastest linears are chosen (packed_linear.install)


BATCHING = {
    "smoke": BatchingSizes(2, 6, 6, 4, (2, 4), 2, 0, 0, 0, 0, (1, 2), 4, 3, 5, 0),
    "cpu": BatchingSizes(None, 64, None, 16, (8, 16, 32), 3, 2, 12, 6, 4, (1, 2, 4, 8, 16), 24, 12, 1000, 2),
    "full": BatchingSizes(None, 192, None, 16, (4, 8, 16, 32), 4, 3, 64, 16, 16, (1, 2, 4, 8, 16), 64, 100, 1000, 5),
    "gpu": BatchingSizes(None, 192, None, 64, (16, 32, 64), 5, 3, 64, 64, 64, (1, 2, 4, 8, 16, 32), 192, 100, 1000, 5),
}
