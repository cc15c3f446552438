"""Steps of a model and of random shapes, timed as the equation wants them (notebooks 00 and 00c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from helpers import models
from helpers.kernels.fastest_step import fastest_step
from helpers.measuring.cost_model import Measured, Shape
from helpers.profiling.step_time import steps_in_turns

LARGEST = 1.5e9  # bytes of weights: a shape is held twice while it is timed, and a laptop has 8 GiB
ROUNDS_A_PASS = 5


@dataclass(frozen=True)
class Steps:
    """Timed steps of the model `name` in `dtype`, after `context` tokens: the seconds of each round by the number of
    tokens that the step reads."""

    name: str
    shape: Shape
    dtype: str
    context: int
    seconds: dict[int, list[float]]

    def median(self, num_tokens: int = 1) -> float:
        """Seconds of a step that reads so many tokens."""
        return median(self.seconds[num_tokens])

    def relative(self) -> list[tuple[int, float]]:
        """(tokens, the step's time over that of one token)."""
        return [(n, self.median(n) / self.median(1)) for n in self.seconds]

    def points(self) -> list[Measured]:
        """As the equation's fit takes them."""
        return [Measured(self.name, self.shape, self.dtype, n, self.context, self.median(n)) for n in self.seconds]

    def share_of(self, bandwidth: float, num_tokens: int = 1) -> float:
        """Weight bytes over the step's time, as a share of `bandwidth` (bytes per second)."""
        return self.shape.weight_bytes / self.median(num_tokens) / bandwidth


def time_steps(
    arms: Mapping[str, torch.nn.Module],
    shape: Shape,
    num_tokens: Sequence[int],
    *,
    context: int = 128,
    rounds: int = 15,
    before: Callable[[], object] = lambda: None,
) -> dict[str, Steps]:
    """Steps of several models of one shape and dtype, which take turns. `before` is called ahead of each step, off the
    clock: `Memory.read`, where the steps are compared with the bandwidth."""
    dtype = str(next(iter(arms.values())).dtype).removeprefix("torch.")
    seconds = steps_in_turns(arms, num_tokens, context=context, rounds=rounds, before=before)
    return {name: Steps(name, shape, dtype, context, seconds[name]) for name in arms}


def time_random_shapes(
    names: Sequence[str],
    dtypes: Sequence[str],
    num_tokens: Sequence[int],
    *,
    device: str = "cpu",
    turns: int = 2,
    context: int = 128,
    rounds: int = 15,
) -> list[Steps]:
    """Steps of models with random weights, by their fastest step: what they answer means nothing, what they cost is
    real. On a CPU a shape is left out in a dtype in which its weights take more than LARGEST.

    One model is held at a time. Some rounds of each, then of each again, back and forth: a machine whose memory gets
    slower meanwhile, for what its neighbours do, gets slower for all of them.
    """
    shapes = {(n, d): Shape.of(models.shape_only(n, d, device="meta")) for n in names for d in dtypes}
    shapes = {key: s for key, s in shapes.items() if device != "cpu" or s.weight_bytes <= LARGEST}
    seconds = {key: {n: [] for n in num_tokens} for key in shapes}
    passes, order = -(-rounds // ROUNDS_A_PASS), list(shapes)
    for done in range(passes):
        rounds_now = rounds // passes + (done < rounds % passes)
        for name, dtype in order:
            step = fastest_step(models.shape_only(name, dtype, device=device), turns)
            timed = time_steps({name: step}, shapes[name, dtype], num_tokens, context=context, rounds=rounds_now)
            for n in num_tokens:
                seconds[name, dtype][n] += timed[name].seconds[n]
            del step
        order.reverse()
    return [Steps(name, shapes[name, dtype], dtype, context, seconds[name, dtype]) for name, dtype in shapes]
