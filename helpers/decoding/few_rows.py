"""A linear layer for few rows, as decoding has them: which of PyTorch's own ways is fastest is measured, not guessed.

With one row the library's default is a matrix-vector kernel that may run at a third of the memory's bandwidth; the
same product written otherwise can be twice as fast, and which way wins changes with the rows, the dtype and the machine
(notebook 00). Both sides of a comparison in the course use what was found here.
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

from helpers.machine import describe_machine, is_calm
from helpers.results import build_root, write_whole

ROWS = (1, 2, 4, 8, 16, 32)  # what is measured; other counts use the next larger one
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


FORMS: dict[str, Form] = {"plain": plain, "swapped": swapped, "padded": padded}
if torch.backends.mkldnn.is_available():  # not on every build: Apple's has none
    FORMS["mkldnn"] = mkldnn
MARGIN = 0.95  # the library's default stays unless another form takes less than this share of its time


class FewRowsLinear(nn.Module):
    """Shares the weight of an nn.Linear; `forms[i]` computes up to ROWS[i] rows, more go the default way."""

    def __init__(self, linear: nn.Linear, forms: Sequence[str]):
        super().__init__()
        self.weight, self.bias, self.forms = linear.weight, linear.bias, tuple(forms)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._form_of = [FORMS[next(f for r, f in zip(ROWS, forms) if n <= r)] for n in range(1, ROWS[-1] + 1)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.numel() // self.in_features
        if not 0 < rows <= ROWS[-1]:
            return F.linear(x, self.weight, self.bias)
        y = self._form_of[rows - 1](x.reshape(rows, self.in_features), self.weight, self.bias)
        return y.reshape(*x.shape[:-1], self.out_features)


def usable_forms(linear: nn.Linear) -> dict[str, Form]:
    """The forms that this machine has for the layer's dtype: oneDNN has none for float16 on many CPUs."""

    def works(form: Form) -> bool:
        try:
            form(torch.zeros(1, linear.in_features, dtype=linear.weight.dtype), linear.weight, linear.bias)
        except RuntimeError:
            return False
        return True

    return {name: form for name, form in FORMS.items() if works(form)}


def measure_forms(linears: Sequence[nn.Linear], rows: int, turns: int = 5) -> dict[tuple, dict[str, float]]:
    """Seconds of a layer of each shape by each form. The forms take turns over all the model's layers in order, so that
    a weight has left the processor's cache when its turn comes again, as far as it would have in a real step."""
    inputs = {n: torch.randn(rows, n, dtype=linears[0].weight.dtype) for n in {each.in_features for each in linears}}
    best: dict[tuple, dict[str, float]] = {}
    forms = usable_forms(linears[0])
    for _ in range(turns + 1):
        for name, form in forms.items():
            took: dict[tuple, float] = {}
            for linear in linears:
                x, shape = inputs[linear.in_features], tuple(linear.weight.shape)
                began = time.perf_counter()
                form(x, linear.weight, linear.bias)
                took[shape] = took.get(shape, 0.0) + time.perf_counter() - began
            for shape, seconds in took.items():
                found = best.setdefault(shape, {})
                found[name] = min(seconds, found.get(name, seconds))
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
        times = [measure_forms(linears, rows, turns) for rows in ROWS]
        known[entry] = {f"{out}x{into}": [fastest(t[out, into]) for t in times] for out, into in times[0]}
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
    return f"{where}, {linears[0].weight.dtype}: {told}"


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
