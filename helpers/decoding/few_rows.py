"""A linear layer for few rows, as decoding has them: which of PyTorch's own ways is fastest is measured, not guessed.

With one row the library's default is a matrix-vector kernel that may run at a third of the memory's bandwidth; the
same product written otherwise can be twice as fast, and which way wins changes with the rows, the dtype and the machine
(notebook 00). Both sides of every comparison in the course use what was found here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from helpers.machine import describe_machine
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


FORMS: dict[str, Form] = {"plain": plain, "swapped": swapped, "padded": padded, "mkldnn": mkldnn}


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


def measure_forms(linears: Sequence[nn.Linear], rows: int, seconds: float = 0.02) -> dict[str, float]:
    """Seconds for one layer by each form: the forms take turns over all `linears` of one shape, so that a weight has
    left the cache when its turn comes again, as it has in a real step; the minimum of the turns."""
    weight = linears[0].weight
    x = torch.randn(rows, linears[0].in_features, dtype=weight.dtype, device=weight.device)
    times: dict[str, list[float]] = {}
    for name, form in FORMS.items():
        try:
            form(x, weight, linears[0].bias)
            times[name] = []
        except (RuntimeError, NotImplementedError):  # not for this device or dtype
            continue
    spent = 0.0
    while spent < seconds * len(times) or len(times["plain"]) < 5:
        for name in times:
            began = time.perf_counter()
            for linear in linears:
                FORMS[name](x, linear.weight, linear.bias)
            times[name].append((time.perf_counter() - began) / len(linears))
            spent += times[name][-1] * len(linears)
    return {name: min(found) for name, found in times.items()}


@torch.inference_mode()
def install(model: nn.Module) -> nn.Module:
    """Replace the model's nn.Linear layers, in place, by ones that take the fastest form for few rows.

    What is fastest is measured once for each machine, dtype and shape, and kept in build/few_rows.json; on a GPU the
    model stays as it is, since kernels run behind the clock there. Returns the model.
    """
    shapes: dict[tuple, list[tuple[str, nn.Linear]]] = {}
    for name, module in model.named_modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu":
            where = (tuple(module.weight.shape), str(module.weight.dtype), module.bias is not None)
            shapes.setdefault(where, []).append((name, module))
    known = _known()
    machine = describe_machine()
    for where, found in shapes.items():
        entry = f"{machine.cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}, {len(found)} of {where}"
        if entry not in known:
            layers = [linear for _, linear in found]
            known[entry] = [min(t, key=t.get) for t in (measure_forms(layers, r) for r in ROWS)]
        for name, linear in found:
            model.set_submodule(name, FewRowsLinear(linear, known[entry]))
    if shapes:
        write_whole(_file(), json.dumps(known, indent=1))
    return model


def forms_of(model: nn.Module) -> dict[tuple[int, int], tuple[str, ...]]:
    """What was chosen for each shape (out, in), a form for each of ROWS."""
    return {tuple(m.weight.shape): m.forms for m in model.modules() if isinstance(m, FewRowsLinear)}


def _file():
    return build_root() / "few_rows.json"


def _known() -> dict[str, list[str]]:
    try:
        return json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
