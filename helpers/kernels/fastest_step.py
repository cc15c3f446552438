"""The fastest step that the course has for a model: fused, and with packed linears."""

from __future__ import annotations

import copy

from torch import nn

from helpers.errors import CourseError
from helpers.kernels import packed_linear
from helpers.kernels.fused_llama import FusedLlama


def packed_copy(model: nn.Module, turns: int = 5) -> nn.Module:
    """A copy of the model with packed linears; it shares the model's weights, and the model stays as it comes."""
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return packed_linear.install(copy.deepcopy(model, shared), turns)


def fastest_step(model: nn.Module, turns: int = 5) -> nn.Module:
    """The model's fused step with packed linears; of a kind that the fused step is not written for, a copy with packed
    linears alone."""
    try:
        fused = FusedLlama(model)
    except CourseError:
        return packed_copy(model, turns)
    return packed_linear.install(fused, turns)


def ways(model: nn.Module, turns: int = 5) -> dict[str, nn.Module]:
    """The same function in up to three ways: the model as transformers runs it, with packed linears, and fused with
    packed linears (where the fused step is written for its kind)."""
    fastest = fastest_step(model, turns)
    arms = {"transformers": model, "packed": packed_copy(model, turns) if is_fused(fastest) else fastest}
    return arms | ({"fused": fastest} if is_fused(fastest) else {})


def is_fused(model: nn.Module) -> bool:
    """Whether `fastest_step` made this one fused."""
    return isinstance(model, FusedLlama)
