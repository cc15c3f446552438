"""What all quantized linear layers share: how they take the places of a model's own, and what they store."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from helpers.errors import CourseError


def replace_linears(
    model: nn.Module, make: Callable[[nn.Linear], nn.Module], *, skip: Iterable[nn.Module | None] = ()
) -> int:
    """Put `make(linear)` in the place of each nn.Linear of the model, except those in `skip`; returns how many.

    A layer that stands in two places is made once, and stands in both again. Layers that are quantized already stay.
    Raises CourseError where there is nothing to replace.
    """
    skipped = set(skip)
    linears = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if name and _is_dense(module) and module not in skipped
    }
    if not linears:
        raise CourseError("The model has no nn.Linear to replace: give it as it was loaded, not quantized or packed.")
    replacements = {linear: make(linear) for linear in dict.fromkeys(linears.values())}
    for name, linear in linears.items():
        model.set_submodule(name, replacements[linear])
    return len(replacements)


def _is_dense(module: nn.Module) -> bool:
    """Whether its weight is the matrix (out, in): in bitsandbytes' layers, nn.Linear too, it isn't."""
    if not isinstance(module, nn.Linear):
        return False
    return module.weight.is_floating_point() and module.weight.shape == (module.out_features, module.in_features)


class Stored(nn.Module):
    """A module whose buffers move with it but keep their dtypes: `model.half()` must not turn bytes into halves."""

    def _apply(self, fn, recurse: bool = True) -> nn.Module:
        stored = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in stored.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self
