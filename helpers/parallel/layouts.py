"""Replicas, tensor parallelism or a pipeline: what each would bring on devices that aren't here (notebook 06).

A simulation: the equation of notebook 00 for what a device reads and computes, and `Link` for what ranks send. It
leaves out overhead, kernels that miss the roof and sending beside computing, and says which way of splitting is the
better one rather than how fast it is.
"""

from __future__ import annotations

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
    """A model that is served: parameters, layers, the size of its hidden states, bytes of a number, and bytes of a
    token's keys and values."""

    parameters: float
    layers: int
    hidden: int
    bytes_per_number: int
    kv_bytes_per_token: float

    def step(self, device: Device, users: float, context: int, share: float = 1.0) -> float:
        """Seconds in which a device does this share of a step for so many users."""
        weights = share * self.parameters * self.bytes_per_number / device.bandwidth
        computing = share * 2 * users * self.parameters / device.rate
        keys = share * users * context * self.kv_bytes_per_token / device.bandwidth
        return max(weights + keys, computing)

    def held(self, users: float, context: int) -> float:
        """Bytes of weights, and of so many users' keys and values."""
        return self.parameters * self.bytes_per_number + users * context * self.kv_bytes_per_token


@dataclass(frozen=True)
class Layout:
    """A way to use so many devices: seconds between one user's tokens, tokens per second of all users together, and
    whether it fits the memory."""

    way: str
    devices: int
    seconds: float
    tokens_per_second: float
    fits: bool


def layouts(model: Served, device: Device, devices: int, users: int, context: int) -> list[Layout]:
    """Replicas, tensor parallelism over all devices and over those of each node (replicas of nodes), and a pipeline,
    for so many users at a time."""
    each = users / devices
    alone = model.step(device, each, context)
    # Each of `devices` groups of users is at another stage: a device reads its layers for one group after the other.
    hidden = each * model.hidden * model.bytes_per_number
    pipeline = alone + (devices - 1) * device.link(devices).send(hidden)

    def cut(ranks: int) -> tuple[float, float]:
        """Seconds of a step that so many ranks do together, and bytes of one of them."""
        together = each * ranks
        size = together * model.hidden * model.bytes_per_number
        reduced = 2 * model.layers * device.link(ranks).all_reduce(size, ranks)
        return model.step(device, together, context, 1 / ranks) + reduced, model.held(together, context) / ranks

    ways = {
        "replicas": (alone, model.held(each, context)),
        "tensor": cut(devices),
        "tensor in a node": cut(min(devices, device.per_node)),
        "pipeline": (pipeline, model.held(users, context) / devices),
    }
    return [
        Layout(way, devices, seconds, users / seconds, held <= device.memory) for way, (seconds, held) in ways.items()
    ]


def best_layout(found: list[Layout], longest: float = float("inf")) -> Layout | None:
    """The most tokens per second of those that fit, and let no user wait longer than so many seconds for a token; None
    if there is none."""
    good = [one for one in found if one.fits and one.seconds <= longest]
    return max(good, key=lambda one: one.tokens_per_second, default=None)
