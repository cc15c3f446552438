"""The fused step with integer weights by PyTorch's packed kernels: layers are joined, quantized and packed (notebook
02).

A product of its own for each of them would cost a call each, and calls are most of a small model's step. Joining costs
no exactness: a row's codes and scales are its own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from pathlib import Path

import torch
from torch import nn

from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.kernels import packed_linear
from helpers.kernels.fused_llama import Beside, is_fusible
from helpers.kernels.quantized_step import JOINED, Make, quantized_fused, rounding
from helpers.measuring.machine import describe_machine, is_calm
from helpers.measuring.timing import take_turns
from helpers.weights.quantization.integer import Group, IntegerLinear
from helpers.weights.quantization.linear import replace_linears
from helpers.weights.quantization.packed import DynamicInt8, Packed, beside, pack, packed

FEW, MANY = 16, 64  # tokens for which both ways of a packed layer are timed
FEWEST, NEVER = 5, 2**31  # up to four tokens the kernels read a weight once: there they always win
_of_this_process: dict[str, dict[str, int]] = {}  # choices as they are kept, those of a busy machine, too


@torch.inference_mode()
def packed_step(
    model: nn.Module,
    bits: int = 8,
    group: Group | None = None,
    *,
    symmetric: bool = True,
    head_bits: int | None = 8,
    dynamic: bool = False,
    turns: int = 3,
) -> nn.Module:
    """The fused step of a bfloat16 model with packed integer layers; the model stays as it is. Of a kind that the fused
    step isn't written for: a copy with packed layers.

    Linear layers are rounded to nearest in `bits` and `group`; layers that are integer already (by GPTQ, say) keep
    their codes. The output layer gets `head_bits` (None: it stays in packed bfloat16), the embedding is looked up as it
    is. With `dynamic` the layers' inputs are rounded to eight bits, too (W8A8). From how many tokens on a layer is
    widened is measured in so many `turns`, once a machine and model shape; with 0 it is 64.

    Raises:
        CourseError: the model isn't in bfloat16 on the CPU, or a layer is none that the kernels take.
    """
    if model.dtype != torch.bfloat16 or model.device.type != "cpu":
        raise CourseError(
            f"The packed integer kernels are for bfloat16 on the CPU, not {model.dtype} on {model.device}: load the "
            'model with dtype="bfloat16".'
        )
    make, rounded = DynamicInt8 if dynamic else packed, rounding(bits, group, symmetric)
    if is_fusible(model):
        step = quantized_fused(model, rounded, rounding(head_bits) if head_bits else None)
        for layer in step.layers:
            for name in JOINED:
                setattr(layer, name, make(_as_one(getattr(layer, name))))
        if head_bits:
            step.lm_head = packed(step.lm_head)
    else:
        step = _not_fused(model, rounded, make)
    choose_widening(step, turns)
    return packed_linear.install(step, turns)


def _as_one(linear: nn.Module) -> IntegerLinear:
    """An integer layer as it is; those that stand beside each other as one."""
    if isinstance(linear, Beside):
        return beside([_as_one(each) for each in linear.linears])
    if not isinstance(linear, IntegerLinear):
        raise CourseError(f"A {type(linear).__name__} can't be packed: give the model as it was loaded, or quantized.")
    return linear


def _not_fused(model: nn.Module, rounded: Make, make: Callable[[IntegerLinear], nn.Module]) -> nn.Module:
    """A copy of the model with packed layers; it shares what stays as it is."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    if not any(isinstance(module, IntegerLinear) for module in model.modules()):
        replace_linears(copied, rounded, skip=[copied.get_output_embeddings()])
    return pack(copied, make)


def choose_widening(model: nn.Module, turns: int) -> None:
    """Set from how many tokens on each packed layer is widened, by what was measured once for these layers here."""
    layers = [module for module in model.modules() if isinstance(module, Packed)]
    if not turns or not layers:
        return
    entry, kept = _entry(layers), _kept()
    choice = kept.get(entry) or _of_this_process.get(entry)
    if choice is None:
        choice = {name: crossing(*times) for name, times in time_both_ways(layers, turns).items()}
        _of_this_process[entry] = choice
        if is_calm().calm:
            write_whole(_file(), json.dumps(kept | {entry: choice}, indent=1))
    for layer in layers:
        layer.widen_from = choice[_name(layer)]


def time_both_ways(layers: Sequence[Packed], turns: int) -> dict[str, tuple[dict[int, float], dict[int, float]]]:
    """Seconds of the layers of each shape, packed and widened, by the number of tokens. A turn goes through all layers
    in order, so that weights come from memory."""
    times: dict[str, tuple[dict[int, float], dict[int, float]]] = {_name(layer): ({}, {}) for layer in layers}
    for n in (FEW, MANY):
        inputs = {each: torch.randn(n, each, dtype=torch.bfloat16) for each in {layer.in_features for layer in layers}}
        for way, product in enumerate(("packed_product", "widened_product")):
            arms = {
                place: partial(getattr(layer, product), inputs[layer.in_features]) for place, layer in enumerate(layers)
            }
            seconds = take_turns(arms, turns, warmup=1, reverse=False)
            for name in times:
                of_shape = [seconds[place] for place, layer in enumerate(layers) if _name(layer) == name]
                times[name][way][n] = min(map(sum, zip(*of_shape)))
    return times


def crossing(packed_seconds: dict[int, float], widened_seconds: dict[int, float]) -> int:
    """From how many tokens on widening is faster, if both times grow evenly: more for each token by the kernel, more
    for none by widening."""

    def per_token(seconds: dict[int, float]) -> float:
        return (seconds[MANY] - seconds[FEW]) / (MANY - FEW)

    gain = per_token(packed_seconds) - per_token(widened_seconds)
    if gain <= 0:
        return FEWEST if widened_seconds[FEW] < packed_seconds[FEW] else NEVER
    return max(FEWEST, ceil(FEW + (widened_seconds[FEW] - packed_seconds[FEW]) / gain))


def widening(model: nn.Module) -> dict[str, int]:
    """What was chosen for each kind and shape of layer."""
    return {_name(module): module.widen_from for module in model.modules() if isinstance(module, Packed)}


def _name(layer: Packed) -> str:
    group = f" in groups of {layer.group}" if hasattr(layer, "group") else ""
    return f"{type(layer).__name__} {layer.out_features}x{layer.in_features}{group}"


def _entry(layers: Sequence[Packed]) -> str:
    """What a choice holds for: the machine, its threads, torch, and the model's layers."""
    names = sorted({_name(layer) for layer in layers})
    where = f"{describe_machine().cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return f"{where}: {len(layers)} layers, {', '.join(names)}"


def _file() -> Path:
    return build_root() / "packed_step.json"


def _kept() -> dict[str, dict[str, int]]:
    try:
        return json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
