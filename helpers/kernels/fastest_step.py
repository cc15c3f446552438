"""The fastest step that the course has for a model: in C++ where that can be had, else fused, with packed linears."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from torch import nn

from helpers.errors import CourseError
from helpers.kernels import packed_linear
from helpers.kernels.fused_llama import FusedLlama
from helpers.kernels.native.native_drafter import NativeDrafter
from helpers.kernels.native.native_llama import NativeLlama
from helpers.speculation.recurrent_drafter import RecurrentDrafter

Made = TypeVar("Made")


def packed_copy(model: nn.Module, turns: int = 5) -> nn.Module:
    """A copy of the model with packed linears; it shares the model's weights, and the model stays as it comes."""
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return packed_linear.install(copy.deepcopy(model, shared), turns)


def fused_step(model: nn.Module, turns: int = 5) -> nn.Module:
    """The model's fused step with packed linears; CourseError for a kind that it is not written for."""
    return packed_linear.install(FusedLlama(model), turns)


def fastest_step(model: nn.Module, turns: int = 5) -> nn.Module:
    """The model's step in C++; where that can't be had the fused step with packed linears; of a kind that neither is
    written for, a copy with packed linears alone. `turns` are those of packed_linear.install."""
    made = (_where_it_can_be_had(make, model) for make in (NativeLlama, partial(fused_step, turns=turns)))
    return next((step for step in made if step is not None), None) or packed_copy(model, turns)


def fastest_drafter(drafter: RecurrentDrafter, turns: int = 5) -> NativeDrafter | RecurrentDrafter:
    """The drafter's search in C++; where that can't be had the drafter with packed linears."""
    made = _where_it_can_be_had(NativeDrafter, drafter)
    return packed_linear.install(drafter, turns) if made is None else made


def ways(model: nn.Module, turns: int = 5) -> dict[str, nn.Module]:
    """The same function in up to four ways: the model as transformers runs it, with packed linears, fused with packed
    linears (where the fused step is written for its kind), and in C++ (where that can be had)."""
    arms = {"transformers": model, "packed": packed_copy(model, turns)}
    for name, make in (("fused", partial(fused_step, turns=turns)), ("native", NativeLlama)):
        if (step := _where_it_can_be_had(make, model)) is not None:
            arms[name] = step
    return arms


def _where_it_can_be_had(make: Callable[[nn.Module], Made], model: nn.Module) -> Made | None:
    try:
        return make(model)
    except CourseError:
        return None


def is_our_own(model: nn.Module) -> bool:
    """Whether `fastest_step` made this one anew, instead of putting packed linears into a model of transformers."""
    return isinstance(model, (FusedLlama, NativeLlama))
