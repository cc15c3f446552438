"""A linear layer for few rows, as decoding has them: which of PyTorch's own ways is fastest is measured, not guessed.

With one row the library's default is a matrix-vector kernel that may run at a third of the memory's bandwidth; the
same product written otherwise can be twice as fast, and which way wins changes with the rows, the dtype and the machine
(notebook 00). Most often it is the product with a copy of the weight that lies as the kernel reads it: packing it once
is what inference engines do when they load a model. Both sides of a comparison in the course use what was found here.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from helpers.files import build_root, write_whole
from helpers.measuring.machine import describe_machine, is_calm

ROWS = (1, 2, 4, 8, 16, 32, 64)  # what is measured; other counts use the next larger one, more rows the largest
Form = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def plain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x (rows, in) and weight (out, in) give (rows, out), the library's default way."""
    return F.linear(x, weight, bias)


def swapped(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The same product with the weight on the left: (W x^T)^T."""
    y = (weight @ x.T).T
    return y if bias is None else y + bias


def padded(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """One row taken for two: a matrix product where the library would choose its matrix-vector kernel."""
    return swapped(x.expand(2, -1) if x.shape[0] == 1 else x, weight, bias)[: x.shape[0]]


def mkldnn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """oneDNN's linear, which torch.compile also uses."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def packed(weight: torch.Tensor) -> torch.Tensor:
    """A copy of a weight (out, in) in the blocks that oneDNN's kernel reads one after the other."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach())


FORMS: dict[str, Form] = {"plain": plain, "swapped": swapped, "padded": padded}
if torch.backends.mkldnn.is_available():  # not on every build: Apple's has none
    FORMS |= {"mkldnn": mkldnn, "packed": mkldnn}
PREPARED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"packed": packed}  # what a form makes of the weight
MARGIN = 0.95  # the library's default stays unless another form takes less than this share of its time


class FewRowsLinear(nn.Module):
    """Shares the weight of an nn.Linear; `forms[i]` computes up to ROWS[i] rows, the last one all that have more.

    A packed copy is made at the first call: a weight must not change in place after that.
    """

    def __init__(self, linear: nn.Linear, forms: Sequence[str]):
        super().__init__()
        self.weight, self.bias, self.forms = linear.weight, linear.bias, tuple(forms)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._ways: list[tuple[Form, torch.Tensor]] | None = None

    def ways(self) -> list[tuple[Form, torch.Tensor]]:
        """For each number of rows, from 0 to the largest measured, the form and the weight as it takes it."""
        if self._ways is None:
            weights = {form: _as_taken(form, self) for form in set(self.forms)}
            chosen = [next(f for r, f in zip(ROWS, self.forms) if n <= r) for n in range(ROWS[-1] + 1)]
            self._ways = [(FORMS[form], weights[form]) for form in chosen]
        return self._ways

    def _apply(self, *args, **kwargs):
        self._ways = None  # moved, or of another dtype
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_ways": None}  # a copy of the layer packs for itself

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.numel() // self.in_features
        if not rows:
            return F.linear(x, self.weight, self.bias)
        form, weight = (self._ways or self.ways())[min(rows, ROWS[-1])]
        y = form(x.reshape(rows, self.in_features), weight, self.bias)
        return y.reshape(*x.shape[:-1], self.out_features)


def usable_forms(linear: nn.Linear) -> list[str]:
    """The forms that this machine has for the layer's dtype: oneDNN has none for float16 on many CPUs."""

    def works(form: str) -> bool:
        try:
            FORMS[form](linear.weight.new_zeros(1, linear.in_features), _as_taken(form, linear), linear.bias)
        except RuntimeError:
            return False
        return True

    return [form for form in FORMS if works(form)]


def _as_taken(form: str, linear: nn.Module) -> torch.Tensor:
    return PREPARED[form](linear.weight) if form in PREPARED else linear.weight


def measure_forms(
    linears: Sequence[nn.Linear], rows: Sequence[int], turns: int = 5
) -> dict[int, dict[tuple, dict[str, float]]]:
    """Seconds of a layer of each shape by each form, for each number of rows. Each turn goes through all the model's
    layers in order, so that a weight has left the processor's cache when it comes again, as far as it would have in a
    real step."""
    best: dict[int, dict[tuple, dict[str, float]]] = {n: {} for n in rows}
    for form in usable_forms(linears[0]):
        weights = [_as_taken(form, linear) for linear in linears]  # packed once, for all that is timed
        for n in rows:
            inputs = {each.in_features: each.weight.new_empty(n, each.in_features).normal_() for each in linears}
            for _ in range(turns + 1):
                took: dict[tuple, float] = {}
                for linear, weight in zip(linears, weights, strict=True):
                    x, shape = inputs[linear.in_features], tuple(linear.weight.shape)
                    began = time.perf_counter()
                    FORMS[form](x, weight, linear.bias)
                    took[shape] = took.get(shape, 0.0) + time.perf_counter() - began
                for shape, seconds in took.items():
                    found = best[n].setdefault(shape, {})
                    found[form] = min(seconds, found.get(form, seconds))
    return best


def fastest(times: dict[str, float]) -> str:
    """The form that takes least time; the default where the difference is within the noise."""
    name = min(times, key=times.get)
    return name if times[name] < MARGIN * times["plain"] else "plain"


@torch.inference_mode()
def install(model: nn.Module, turns: int = 5) -> nn.Module:
    """Replace the model's nn.Linear layers, in place, by ones that take the fastest form for few rows (of so many
    `turns` each; large layers need fewer).

    What is fastest is measured once for each machine, model shape and dtype, and kept in build/few_rows.json if the
    machine was calm; on a GPU the model stays as it is, since kernels run behind the clock there. Returns the model.
    """
    layers = {n: m for n, m in model.named_modules() if type(m) is nn.Linear and m.weight.device.type == "cpu"}
    if not layers:
        return model
    linears = list(layers.values())
    entry = _entry(linears)
    known = _known()
    if entry not in known:
        times = measure_forms(linears, ROWS, turns)
        known[entry] = {f"{o}x{i}": [fastest(times[rows][o, i]) for rows in ROWS] for o, i in times[ROWS[0]]}
        if is_calm().calm:
            write_whole(_file(), json.dumps(known, indent=1))
    for name, linear in layers.items():
        out, into = linear.weight.shape
        model.set_submodule(name, FewRowsLinear(linear, known[entry][f"{out}x{into}"]))
    return model


def _entry(linears: Sequence[nn.Linear]) -> str:
    """What a choice holds for: the machine, its threads, torch, and the model's layers."""
    shapes = Counter(f"{m.out_features}x{m.in_features}" for m in linears)
    told = ", ".join(f"{count} of {shape}" for shape, count in shapes.items())
    where = f"{describe_machine().cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return f"{where}, {'/'.join(FORMS)} up to {ROWS[-1]} rows, {linears[0].weight.dtype}: {told}"


def forms_of(model: nn.Module) -> dict[tuple[int, int], tuple[str, ...]]:
    """What was chosen for each shape (out, in), a form for each of ROWS."""
    return {tuple(m.weight.shape): m.forms for m in model.modules() if isinstance(m, FewRowsLinear)}


def _file() -> Path:
    return build_root() / "few_rows.json"


def _known() -> dict[str, dict[str, list[str]]]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {entry: chosen for entry, chosen in found.items() if set().union(*chosen.values()) <= set(FORMS)}
