"""What a step costs with weights in fewer bits, by the tokens that it reads (notebook 02).

Packed bfloat16 is an arm of every comparison: integer kernels take bfloat16 inputs, and a speedup over float32 alone
would be half theirs and half bfloat16's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import numpy as np
from torch import nn

from helpers.errors import CourseError
from helpers.kernels.fastest_step import fastest_step
from helpers.kernels.native import library
from helpers.kernels.native.native_llama import NativeLlama
from helpers.kernels.packed_linear import PackedLinear
from helpers.kernels.packed_step import packed_step
from helpers.kernels.quantized_step import native_nf4, native_step, native_w8a8
from helpers.measuring.timing import Comparison, speedup
from helpers.profiling.step_time import steps_in_turns
from helpers.weights.quantization.integer import Group, linear_bytes
from helpers.weights.quantization.linear import Stored

NUM_TOKENS = (1, 8, 32)  # a step's: of so many sequences, or of a guess and its verification
PROMPT, CONTEXT = 256, 128  # tokens of a prefill; tokens before a step


@dataclass(frozen=True)
class QuantizedSteps:
    """Seconds of one arm: of steps by the tokens that they read, and of the prefill of `prompt` tokens, a figure a
    round; and the bytes of weights that a step reads."""

    name: str
    weight_bytes: int
    seconds: dict[int, list[float]]
    prompt: int
    prefill: list[float]

    def median(self, num_tokens: int = 1) -> float:
        """Seconds of a step that reads so many tokens; of `prompt` tokens it is the prefill."""
        return median(self._rounds(num_tokens))

    def speedup_over(self, other: QuantizedSteps, num_tokens: int = 1) -> Comparison:
        """How many times as fast as the other arm. Where one had fewer rounds, the first ones of both count."""
        pair = other._rounds(num_tokens), self._rounds(num_tokens)
        rounds = min(map(len, pair))
        return speedup(*(each[:rounds] for each in pair), of=np.median)

    def share_of(self, bandwidth: float, num_tokens: int = 1) -> float:
        """Weight bytes over the step's time, as a share of `bandwidth` (bytes per second)."""
        return self.weight_bytes / self.median(num_tokens) / bandwidth

    def _rounds(self, num_tokens: int) -> list[float]:
        return self.prefill if num_tokens == self.prompt else self.seconds[num_tokens]


def time_quantized_steps(
    arms: Mapping[str, nn.Module],
    num_tokens: Sequence[int] = NUM_TOKENS,
    *,
    prompt: int = PROMPT,
    context: int = CONTEXT,
    rounds: int = 15,
    slow: Collection[str] = (),
    before: Callable[[], object] = lambda: None,
) -> dict[str, QuantizedSteps]:
    """Steps after `context` tokens and prefills, of arms that take turns. Those named in `slow` take turns among
    themselves, a third of the rounds, so that the others don't wait for them. `before` is called ahead of each step,
    off the clock: `Memory.read`, where the steps are compared with the bandwidth."""
    timed: dict[str, QuantizedSteps] = {}
    for slowly in (False, True):
        group = {name: arm for name, arm in arms.items() if (name in slow) == slowly}
        if not group:
            continue
        turns = max(3, rounds // 3) if slowly else rounds
        steps = steps_in_turns(group, num_tokens, context=context, rounds=turns, before=before)
        prefills = steps_in_turns(group, [prompt], context=0, rounds=max(3, turns // 3))
        for name, arm in group.items():
            timed[name] = QuantizedSteps(name, bytes_read(arm), steps[name], prompt, prefills[name][prompt])
    return {name: timed[name] for name in arms}


def _in_float32(model: nn.Module, turns: int) -> nn.Module:
    return fastest_step(copy.deepcopy(model).float(), turns)


def fastest_integers(model: nn.Module, bits: int, group: Group | None = None, *, turns: int = 3) -> nn.Module:
    """The step with integer weights in C++; where that can't be had, or the processor can't look codes up in a table,
    by PyTorch's packed kernels."""
    if library.has_look_ups():
        with suppress(CourseError):
            return native_step(model, bits, group)
    return packed_step(model, bits, group, turns=turns)


ARMS: dict[str, Callable[[nn.Module, int], nn.Module]] = {  # of a bfloat16 model, and turns in which kernels are chosen
    "float32": _in_float32,
    "bf16": fastest_step,
    "int8": lambda model, turns: fastest_integers(model, 8, turns=turns),
    "int4": lambda model, turns: fastest_integers(model, 4, turns=turns),
    "nf4": lambda model, turns: native_nf4(model),
    "w8a8": lambda model, turns: native_w8a8(model),
    "torch_int8": lambda model, turns: packed_step(model, 8, turns=turns),
    "torch_int4": lambda model, turns: packed_step(model, 4, turns=turns),
    "torch_w8a8": lambda model, turns: packed_step(model, 8, dynamic=True, turns=turns),
}


def quantized_arms(
    model: nn.Module, names: Sequence[str] = tuple(ARMS), *, group: Group | None = None, turns: int = 3
) -> dict[str, nn.Module]:
    """The fastest steps of a bfloat16 model in several formats: dense in float32 and bfloat16, with eight-bit weights,
    with four-bit ones (`group` of them share a scale; None: 64) and with NF4; and those of PyTorch's packed kernels,
    the last with inputs of eight bits, too. Formats that this machine has no kernel for are left out.

    Each arm has its own weights: dense ones hold them twice, all of them take about 19 bytes a parameter.
    """
    unknown = set(names) - set(ARMS)
    if unknown:
        raise CourseError(f"There is no arm {', '.join(sorted(unknown))} here; there are {', '.join(ARMS)}.")
    made = dict(ARMS)
    if group is not None:
        made["int4"] = lambda m, t: fastest_integers(m, 4, group, turns=t)
        made["torch_int4"] = lambda m, t: packed_step(m, 4, group, turns=t)
    arms = {}
    for name in names:
        try:
            arms[name] = made[name](model, turns)
        except CourseError as reason:
            print(f"{name} is left out: {reason}")
    return arms


def bytes_read(model: nn.Module) -> int:
    """Bytes of the weights that a step reads, scales included: all linear layers, the output layer among them. An
    embedding that is only looked up isn't read."""
    if isinstance(model, NativeLlama):
        return model.weight_bytes
    head = model.get_output_embeddings()
    dense = sum(each.weight.nbytes for each in model.modules() if isinstance(each, PackedLinear) and each is not head)
    of_head = sum(b.nbytes for b in head.buffers()) if isinstance(head, Stored) else head.weight.nbytes
    return linear_bytes(model) + dense + of_head
