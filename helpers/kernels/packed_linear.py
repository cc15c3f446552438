"""A linear layer for few tokens, as decoding has them: which of PyTorch's kernels is fastest is measured, not guessed.

With one token the library's default is a matrix-vector kernel that may run at a third of the memory's bandwidth; the
same product written otherwise can be twice as fast, and which variant wins changes with the number of tokens, the dtype
and the machine (notebook 00). Most often it is the product with a packed copy of the weight, in the blocks that the
kernel reads one after the other: packing it once is what inference engines do when they load a model. Both sides of a
comparison in the course use what was found here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.kernels.native import tiles
from helpers.measuring.machine import describe_machine, is_calm
from helpers.measuring.timing import take_turns

NUM_TOKENS = (1, 2, 4, 8, 16, 32, 64)  # measured; others use the next larger one, more tokens the largest
Kernel = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (n, in) and weight (out, in) give (n, out), the library's default way."""
    return F.linear(x, weight, bias)


def swapped(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same product with the weight on the left: (W x^T)^T."""
    y = (weight @ x.T).T
    return y if bias is None else y + bias


def padded(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One token twice: a matrix product where the library would choose its
    matrix-vector kernel."""
    twice = x.expand(2, -1) if x.shape[0] == 1 else x
    return swapped(twice, weight, bias)[: x.shape[0]]


def mkldnn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """oneDNN's linear, which torch.compile also uses."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def packed(weight: Tensor) -> Tensor:
    """A copy of a weight (out, in) in the blocks that oneDNN's kernel reads one after
    the other."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach())


def native(x: Tensor, weight: tiles.Tiles, bias: Tensor | None) -> Tensor:
    """The course's own product in C++ (native/products.h), where it can be had."""
    y = tiles.product(x, weight)
    return y if bias is None else y + bias


VARIANTS: dict[str, Kernel] = {"plain": plain, "swapped": swapped, "padded": padded, "native": native}
if torch.backends.mkldnn.is_available():  # not on every build: Apple's has none
    VARIANTS |= {"mkldnn": mkldnn, "packed": mkldnn}
PREPARED: dict[str, Callable] = {"packed": packed, "native": tiles.Tiles.of}  # what a variant makes of the weight
_of_this_process: dict[str, dict[str, list[str]]] = {}  # choices as they are kept, those of a busy machine, too
MARGIN = 0.95  # the library's default stays unless another variant takes less than this share of its time


class PackedLinear(nn.Module):
    """Shares the weight of an nn.Linear; `variants[i]` computes up to NUM_TOKENS[i] tokens, the last one all that are
    more.

    A packed copy is made at the first call: a weight must not change in place after that.
    """

    def __init__(self, linear: nn.Linear, variants: Sequence[str]):
        super().__init__()
        self.weight, self.bias, self.variants = linear.weight, linear.bias, tuple(variants)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._kernels: list[tuple[Kernel, Tensor]] | None = None

    def kernels(self) -> list[tuple[Kernel, Tensor]]:
        """For each number of tokens, from 0 to the largest measured, the kernel and the weight as it reads it."""
        if self._kernels is None:
            ready = {variant: _ready(variant, self) for variant in set(self.variants)}
            chosen = [next(v for m, v in zip(NUM_TOKENS, self.variants) if n <= m) for n in range(NUM_TOKENS[-1] + 1)]
            self._kernels = [ready[variant] for variant in chosen]
        return self._kernels

    def _apply(self, *args, **kwargs):
        self._kernels = None  # moved, or of another dtype
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_kernels": None}  # a copy of the layer packs for itself

    def _load_from_state_dict(self, *args, **kwargs):
        self._kernels = None  # another weight
        super()._load_from_state_dict(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        num_tokens = x.numel() // self.in_features
        if not num_tokens or x.dtype != self.weight.dtype:
            return F.linear(x, self.weight, self.bias)
        kernel, weight = (self._kernels or self.kernels())[min(num_tokens, NUM_TOKENS[-1])]
        if kernel is native and torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad):
            return F.linear(x, self.weight, self.bias)  # C++ leaves no trace for gradients
        y = kernel(x.reshape(num_tokens, self.in_features), weight, self.bias)
        return y.reshape(*x.shape[:-1], self.out_features)


@torch.no_grad()
def usable_variants(*linears: nn.Module, among: Iterable[str] | None = None) -> list[str]:
    """The variants, of all or `among` these, that this machine has for all the layers: oneDNN has none for float16 on
    many CPUs."""

    def works(variant: str, weight: Tensor) -> bool:
        try:
            VARIANTS[variant](weight.new_zeros(1, weight.shape[1]), _prepared(variant, weight), None)
        except (RuntimeError, CourseError):
            return False
        return True

    # A few lines of a weight tell as much as all of them.
    kinds = {(m.in_features, m.weight.dtype, m.weight.device): m.weight[:32] for m in linears}
    asked = VARIANTS if among is None else among
    return [variant for variant in asked if all(works(variant, weight) for weight in kinds.values())]


def _ready(variant: str, linear: nn.Module) -> tuple[Kernel, Tensor]:
    """A variant's kernel, and the weight as it reads it; the plain one where this dtype or device has it no more."""
    try:
        return VARIANTS[variant], _prepared(variant, linear.weight)
    except (RuntimeError, CourseError):
        return plain, linear.weight


def _prepared(variant: str, weight: Tensor) -> Tensor:
    return PREPARED[variant](weight) if variant in PREPARED else weight


def measure_variants(
    linears: Sequence[nn.Linear], num_tokens: Sequence[int], turns: int = 5
) -> dict[int, dict[tuple, dict[str, float]]]:
    """Seconds of a layer of each shape by each variant, for each number of tokens. Each turn goes through all the
    model's layers in order, so that a weight has left the processor's cache when it comes again, as far as it would
    have in a real step."""
    best: dict[int, dict[tuple, dict[str, float]]] = {n: {} for n in num_tokens}
    for variant in usable_variants(*linears):
        weights = [_prepared(variant, linear.weight) for linear in linears]  # packed once, for all that is timed
        for n in num_tokens:
            inputs = {each.in_features: each.weight.new_empty(n, each.in_features).normal_() for each in linears}
            arms = {
                place: partial(VARIANTS[variant], inputs[linear.in_features], weight, linear.bias)
                for place, (linear, weight) in enumerate(zip(linears, weights, strict=True))
            }
            seconds = take_turns(arms, turns, warmup=1, reverse=False)
            for shape in {tuple(linear.weight.shape) for linear in linears}:
                of_shape = [seconds[place] for place, linear in enumerate(linears) if linear.weight.shape == shape]
                best[n].setdefault(shape, {})[variant] = min(map(sum, zip(*of_shape))) / len(of_shape)
    return best


def fastest(times: dict[str, float]) -> str:
    """The variant that takes least time; the default where the difference is within the noise."""
    name = min(times, key=times.get)
    return name if times[name] < MARGIN * times["plain"] else "plain"


@torch.inference_mode()
def install(model: nn.Module, turns: int = 5) -> nn.Module:
    """Replace the model's nn.Linear layers, in place, by ones that take the fastest variant for few tokens (of so many
    `turns` each; large layers need fewer). With 0 turns nothing is measured, and all of them are packed.

    What is fastest is measured once for each machine, model shape and dtype: kept in build/packed_linear.json if the
    machine was calm, else until this process ends. On a GPU the model stays as it is, since kernels run behind the
    clock there.
    """
    layers = {n: m for n, m in model.named_modules() if type(m) is nn.Linear and m.weight.device.type == "cpu"}
    if not layers:
        return model
    linears = list(layers.values())
    entry = _entry(linears)
    kept = _kept_choices()
    choice = kept.get(entry) or _of_this_process.get(entry) if turns else unmeasured(linears)
    if choice is None:
        times = measure_variants(linears, NUM_TOKENS, turns)
        choice = {f"{o}x{i}": [fastest(times[n][o, i]) for n in NUM_TOKENS] for o, i in times[NUM_TOKENS[0]]}
        _of_this_process[entry] = choice
        if is_calm().calm:
            write_whole(_file(), json.dumps(kept | {entry: choice}, indent=1))
    for name, linear in layers.items():
        out_features, in_features = linear.weight.shape
        model.set_submodule(name, PackedLinear(linear, choice[f"{out_features}x{in_features}"]))
    return model


def unmeasured(linears: Sequence[nn.Linear]) -> dict[str, list[str]]:
    """The packed copy for every shape and number of tokens, where this machine has it: most often the fastest."""
    packs = "packed" in VARIANTS and usable_variants(*linears, among=["packed"])
    variant = "packed" if packs else "plain"
    return {f"{m.out_features}x{m.in_features}": [variant] * len(NUM_TOKENS) for m in linears}


def _entry(linears: Sequence[nn.Linear]) -> str:
    """What a choice holds for: the machine, its threads, torch, and the model's layers."""
    counts = Counter(f"{m.out_features}x{m.in_features}" for m in linears)
    shapes = ", ".join(f"{count} of {shape}" for shape, count in counts.items())
    where = f"{describe_machine().cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return f"{where}, {'/'.join(VARIANTS)} up to {NUM_TOKENS[-1]} tokens, {linears[0].weight.dtype}: {shapes}"


def variants_of(model: nn.Module) -> dict[tuple[int, int], tuple[str, ...]]:
    """What was chosen for each shape (out, in), a variant for each of NUM_TOKENS."""
    return {tuple(m.weight.shape): m.variants for m in model.modules() if isinstance(m, PackedLinear)}


def _file() -> Path:
    return build_root() / "packed_linear.json"


def _kept_choices() -> dict[str, dict[str, list[str]]]:
    try:
        choices = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {entry: chosen for entry, chosen in choices.items() if set().union(*chosen.values()) <= set(VARIANTS)}
