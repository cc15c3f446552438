"""A copy of a model that shares its weights: to add something to, and leave the model as it is."""

from __future__ import annotations

import copy

from torch import nn


def sharing_copy(model: nn.Module) -> nn.Module:
    """A copy whose modules and configuration are its own, and whose parameters are the model's."""
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, shared)
