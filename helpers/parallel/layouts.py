"""Replicas, tensor parallelism or a pipeline: what each would bring on devices that aren't here (notebook 06).

A simulation: the equation of notebook 00 for what a device reads and computes, and `Link` for what ranks send. It
leaves out overhead, kernels that miss the roof and sending beside computing, and says which way of splitting is the
better one rather than how fast it is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from helpers.parallel.links import Link


@dataclass(frozen=True)
class Device:
    """Bytes of memory, bytes per second that it reads, operations per second; devices of a node, the link between
    these, and the link between nodes."""

    memory: float
    bandwidth: float
    rate: float
    per_node: int
    inside: Link
    between: Link

    def link(self, ranks: int) -> Link:
        """The link that so many ranks in a ring wait for."""
        return self.inside if ranks <= self.per_node else self.between


@dataclass(frozen=True)
class Served:
    """A model that is served: parameters, layers, numbers of a hidden state, heads of queries and of keys and values,
    bytes of a number, and bytes of a token's keys and values."""

    parameters: float
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    bytes_per_number: int
    kv_bytes_per_token: float

    def step(self, device: Device, users: float, context: int, ranks: int = 1) -> float:
        """Seconds of a step for so many users, which so many ranks compute together, without what they send."""
        weights = self.parameters * self.bytes_per_number / ranks
        computing = 2 * users * self.parameters / ranks / device.rate
        return max((weights + self.keys(users, context, ranks)) / device.bandwidth, computing)

    def keys(self, users: float, context: int, ranks: int = 1) -> float:
        """Bytes of these users' keys and values that a rank holds: a head isn't cut."""
        return users * context * self.kv_bytes_per_token / min(ranks, self.kv_heads)

    def held(self, users: float, context: int, ranks: int = 1) -> float:
        """Bytes that a rank holds."""
        return self.parameters * self.bytes_per_number / ranks + self.keys(users, context, ranks)


@dataclass(frozen=True)
class Layout:
    """A way to use so many devices: seconds between the tokens of a user who is alone; and with as many users as memory
    and patience allow, how many these are, seconds between a user's tokens, and tokens per second of all together."""

    way: str
    devices: int
    alone: float
    users: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.users / self.seconds if self.users else 0.0


Cost = Callable[[int], tuple[float, float]]  # of so many users: seconds of their step, bytes of a device


def costs(model: Served, device: Device, devices: int, context: int) -> dict[str, tuple[int, Cost]]:
    """For each way how many copies of the model there are, and what a copy's users cost: replicas, tensor parallelism
    over all devices and over those of each node, a pipeline."""

    def cut(ranks: int) -> Cost:
        def cost(users: int) -> tuple[float, float]:
            size = users * model.hidden * model.bytes_per_number
            reduced = 2 * model.layers * device.link(ranks).all_reduce(size, ranks)
            return model.step(device, users, context, ranks) + reduced, model.held(users, context, ranks)

        return cost

    def pipeline(users: int) -> tuple[float, float]:
        # Groups of users are at different stages: a device reads its layers for one group after the other.
        group = -(-users // devices)
        passed = (devices - 1) * device.link(devices).send(group * model.hidden * model.bytes_per_number)
        return model.step(device, group, context) + passed, model.held(users, context) / devices

    in_node = min(devices, device.per_node)
    found = {"replicas": (devices, cut(1)), "tensor in a node": (devices // in_node, cut(in_node))}
    if devices <= model.heads:  # a head isn't cut
        found["tensor"] = (1, cut(devices))
    return found | {"pipeline": (1, pipeline)}


def layouts(model: Served, device: Device, devices: int, context: int, longest: float) -> list[Layout]:
    """Each way with as many users as fit the memory and wait no longer than `longest` seconds for a token."""
    found = []
    for way, (copies, cost) in costs(model, device, devices, context).items():

        def good(users: int, cost: Cost = cost) -> bool:
            seconds, held = cost(users)
            return seconds <= longest and held <= device.memory

        most = largest(good)
        found.append(Layout(way, devices, cost(1)[0], copies * most, cost(max(1, most))[0]))
    return found


def largest(good: Callable[[int], bool]) -> int:
    """The largest number that is good, if all smaller ones are, too; 0 if there is none."""
    if not good(1):
        return 0
    most = 1
    while good(2 * most):
        most *= 2
    return most + bisect_left(range(most + 1, 2 * most), True, key=lambda users: not good(users))
