"""Collectives from scratch, as rings: each rank sends to its right and takes from its left (notebook 06b).

Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009. Each rank sends
2 (n - 1) / n times the data for an all-reduce, however many ranks there are. `members` are the ranks that take part, in
the order of the ring; all of them call the function, others don't.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from helpers.errors import CourseError


class Ring:
    """A rank's place among the members, and what it has sent in `bytes_sent`."""

    def __init__(self, members: Sequence[int] | None = None):
        self.members = list(range(dist.get_world_size())) if members is None else list(members)
        if dist.get_rank() not in self.members or len(set(self.members)) < len(self.members):
            raise CourseError(f"Rank {dist.get_rank()} must stand once among the members, which are {self.members}.")
        self.size, self.place = len(self.members), self.members.index(dist.get_rank())
        self.bytes_sent = 0

    def swap(self, sent: torch.Tensor, received: torch.Tensor, to: int, source: int) -> None:
        """Send to the member at place `to`, and receive from the one at `source`, at once."""
        if to == self.place:
            received.copy_(sent)
            return
        operations = [
            dist.P2POp(dist.isend, sent.contiguous(), self.members[to]),
            dist.P2POp(dist.irecv, received, self.members[source]),
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()
        self.bytes_sent += sent.nbytes

    def pass_on(self, sent: torch.Tensor, received: torch.Tensor) -> None:
        """To the right, from the left."""
        self.swap(sent, received, (self.place + 1) % self.size, (self.place - 1) % self.size)


def chunk_sent(place: int, step: int, n: int) -> int:
    """Which of n chunks the rank at this place passes on in a step of a reduce-scatter,
    if chunk k is to end at place k after n - 1 steps to the right."""
    return (place - 1 - step) % n


def reduce_scatter(chunks: torch.Tensor, ring: Ring) -> torch.Tensor:
    """Chunk k of (n, ...), summed over all ranks, ends at rank k. Each chunk goes round
    once, and each rank adds its own."""
    n, place = ring.size, ring.place
    total = chunks[chunk_sent(place, 0, n)].clone()
    received = torch.empty_like(total)
    for step in range(1, n):
        ring.pass_on(total, received)
        total = received + chunks[chunk_sent(place, step, n)]
    return total


def all_gather(chunk: torch.Tensor, ring: Ring) -> torch.Tensor:
    """Every rank's chunk, side by side at each rank: (n, ...)."""
    n, place = ring.size, ring.place
    gathered = chunk.new_empty(n, *chunk.shape)
    gathered[place] = chunk
    for step in range(n - 1):
        here, coming = (place - step) % n, (place - 1 - step) % n
        ring.pass_on(gathered[here], gathered[coming])
    return gathered


def all_reduce(x: torch.Tensor, ring: Ring) -> torch.Tensor:
    """The sum of all ranks' tensors, at each rank: reduce-scatter, then all-gather."""
    flat = x.flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % ring.size))
    chunks = padded.view(ring.size, -1)
    total = all_gather(reduce_scatter(chunks, ring), ring)
    return total.flatten()[: len(flat)].view(x.shape)


def ring_seconds(size: float, ranks: int, latency: float, bandwidth: float) -> float:
    """Seconds of an all-reduce as a ring: each rank sends 2 (n - 1) messages of an n-th
    of the data, one after the other. One of b bytes takes latency + b / bandwidth."""
    return 2 * (ranks - 1) * (latency + size / ranks / bandwidth)


def all_to_all(chunks: torch.Tensor, ring: Ring) -> torch.Tensor:
    """Chunk k of (n, ...) goes straight to rank k: what rank r gets are the chunks r of
    all ranks. A transposition, as experts and sequence parallelism need it."""
    n, place = ring.size, ring.place
    received = torch.empty_like(chunks)
    for step in range(n):
        to, source = (place + step) % n, (place - step) % n
        ring.swap(chunks[to], received[source], to, source)
    return received
