"""The same function with other sizes inside: what a norm or a layer gives is divided, and who reads it multiplies.

A channel of a norm's output times its column in the layers that read it doesn't change when a factor goes from one to
the other. SmoothQuant and AWQ move factors so that rounding hurts less; `rescale_norm` moves them the other way, which
makes outliers as large models have them (notebooks 02, 02c and 04).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from helpers.errors import CourseError
from helpers.weights.precision.ranges import blocks_of
from helpers.weights.quantization.calibration import observed_linears


@dataclass(frozen=True)
class Fold:
    """A place that factors can move through: `readers` read what `source`, a norm or a linear layer, gives.

    `heads` is (value heads, query heads that share one, head size) where attention stands between; heads that share
    have one factor.
    """

    source: nn.Module
    readers: tuple[nn.Linear, ...]
    heads: tuple[int, int, int] | None = None

    def shared(self, values: Tensor) -> Tensor:
        """Values of the readers' inputs (in,), their mean over heads that share."""
        if self.heads is None:
            return values
        return values.reshape(self.heads).mean(1, keepdim=True).expand(self.heads).reshape(-1)

    @torch.no_grad()
    def move(self, scale: Tensor) -> None:
        """Divide what the source gives by scale (in,), and multiply the readers' columns by it, in place."""
        of_source = scale if self.heads is None else scale.reshape(self.heads)[:, 0].flatten()
        self.source.weight.div_(of_source[:, None] if isinstance(self.source, nn.Linear) else of_source)
        if getattr(self.source, "bias", None) is not None:
            self.source.bias.div_(of_source)
        for reader in self.readers:
            reader.weight.mul_(scale)


def norm_folds(model: nn.Module) -> list[Fold]:
    """From each norm to the linear layers of the blocks that read it, found by running the model on a few tokens.

    Raises:
        CourseError: there is none, or the model doesn't compute the same when factors move.
    """
    norms = {name: module for name, module in model.named_modules() if _is_norm(module)}
    written = WeakTensorKeyDictionary()  # by tensor, as long as it lives, the norm that gave it
    readers: dict[str, list[nn.Linear]] = {name: [] for name in norms}

    def reads(linear: nn.Linear, x: Tensor) -> None:
        if x in written:
            readers[written[x]].append(linear)

    hooks = [
        norm.register_forward_hook(lambda module, given, y, name=name: written.__setitem__(y, name))
        for name, norm in norms.items()
    ]
    hooks += [
        linear.register_forward_pre_hook(lambda module, given: reads(module, given[0]))
        for linear in observed_linears(model).values()
    ]
    try:
        _states(model)
    finally:
        for hook in hooks:
            hook.remove()
    return _checked(model, [Fold(norms[name], tuple(linears)) for name, linears in readers.items() if linears])


def inner_folds(model: nn.Module) -> list[Fold]:
    """Inside MLPs from up_proj to down_proj, which see each other through a product, and inside attention from v_proj
    to o_proj, which a weighted mean joins. A model whose layers have other names has none."""
    folds = []
    for module in (module for block in blocks_of(model) for module in block.modules()):
        if all(isinstance(getattr(module, name, None), nn.Linear) for name in ("gate_proj", "up_proj", "down_proj")):
            folds.append(Fold(module.up_proj, (module.down_proj,)))
        if all(isinstance(getattr(module, name, None), nn.Linear) for name in ("v_proj", "o_proj")):
            values, size = module.v_proj.out_features, module.head_dim
            sharing = module.o_proj.in_features // values
            folds.append(Fold(module.v_proj, (module.o_proj,), (values // size, sharing, size)))
    return _checked(model, folds) if folds else []


def rescale_norm(model: nn.Module, factor: float = 64.0, columns: Sequence[int] = (0,)) -> nn.Module:
    """Make outliers, in place: these channels of every norm's output, in all blocks, become `factor` times as large,
    and the layers that read them divide. The model computes the same, with a power of two to the bit. Returns it."""
    for fold in norm_folds(model):
        weight = fold.source.weight
        if not columns or not all(0 <= column < len(weight) for column in columns):
            raise CourseError(f"Columns to rescale are numbers from 0 to {len(weight) - 1}, at least one.")
        scale = torch.ones_like(weight)
        scale[list(columns)] = 1 / factor
        fold.move(scale)
    return model


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and isinstance(weight, Tensor) and weight.ndim == 1


@torch.no_grad()
def _states(model: nn.Module) -> Tensor:
    """What the blocks give for a few tokens, (1, tokens, hidden)."""
    ids = torch.arange(min(8, model.config.get_text_config().vocab_size), device=model.device)
    return model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state.float()


def _checked(model: nn.Module, folds: list[Fold]) -> list[Fold]:
    """The folds, tried with a power of two, which must change nothing: some norms add one to their weights, or others
    read, too, what a source gives."""
    before = _states(model)
    if not before.isfinite().all():
        raise CourseError("The model gives NaN or infinity: load or train it again.")
    for fold in folds:
        fold.move(torch.full((fold.readers[0].in_features,), 2.0, device=before.device))
    after = _states(model)
    for fold in folds:
        fold.move(torch.full((fold.readers[0].in_features,), 0.5, device=before.device))
    if not folds or not torch.allclose(before, after, rtol=1e-2, atol=1e-2 * before.abs().mean().item()):
        raise CourseError("No factors can move through this model's norms or layers: quantize it with gptq instead.")
    return folds
