"""A recurrent drafter's search in C++ (drafted_tree.cpp), for a CPU: its products are smaller than calls of PyTorch."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int32, c_void_p

import torch
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.kernels.native import library
from helpers.kernels.native.tiles import DTYPES, ROWS, Weight, described, tiles
from helpers.speculation.recurrent_drafter import RecurrentDrafter


class _Drafter(ctypes.Structure):
    _fields_ = [
        *((name, c_int32) for name in "hidden inner num_ids".split()),
        *((name, Weight) for name in "inner_weight outer_weight lm_head".split()),
        *((name, c_void_p) for name in "embedding inner_bias".split()),
    ]


class _Search(ctypes.Structure):
    _fields_ = [
        *((name, c_int32) for name in "depth beam width column threads".split()),
        ("least", c_float),
        *((name, c_void_p) for name in "state columns parents log_probs".split()),
    ]


class NativeDrafter:
    """The drafter's weights as the C++ reads them; it takes the drafter's place in a DraftedTree. It adds in float32
    where PyTorch rounds in between, so that bfloat16 guesses may differ.

    Raises:
        CourseError: no CPU, no compiler, or neither float32 nor bfloat16.
    """

    def __init__(self, drafter: RecurrentDrafter):
        if reason := why_not(drafter):
            raise CourseError(f"The drafter's search in C++ can't be had: {reason}.")
        inner, outer, lm_head = drafter.inner.weight, drafter.outer.weight, drafter.lm_head.weight
        self.token_ids = drafter.token_ids
        self.dtype = inner.dtype
        bias = drafter.inner.bias.detach().float()
        bias = F.pad(bias, (0, -len(bias) % ROWS))
        in_tiles = [(weight, tiles(weight)) for weight in (inner, outer, lm_head)]
        numbers = drafter.embedding.contiguous(), bias
        self._held = [made for _, made in in_tiles], numbers  # what the structure points to
        pointers = *(described(*pair) for pair in in_tiles), *(tensor.data_ptr() for tensor in numbers)
        self._drafter = _Drafter(lm_head.shape[1], len(inner), len(lm_head), *pointers)
        self._search = library.function("drafted_tree", self.dtype)

    def beam_search(
        self, state: torch.Tensor, column: int, depth: int, beam: int, width: int, least: float
    ) -> tuple[list[int], list[int], list[float]]:
        """As RecurrentDrafter's; `state` (1, hidden)."""
        most = width + (depth - 1) * beam * width
        state = state.to(self.dtype).contiguous()
        numbers, log_probs = torch.empty(2, most, dtype=torch.int32), torch.empty(most)
        pointers = (tensor.data_ptr() for tensor in (state, *numbers, log_probs))
        search = _Search(depth, beam, width, column, torch.get_num_threads(), least, *pointers)
        count = self._search(ctypes.byref(self._drafter), ctypes.byref(search))
        columns, parents = numbers[:, :count].tolist()
        return columns, parents, log_probs[:count].tolist()


def why_not(drafter: RecurrentDrafter) -> str | None:
    """Why a drafter can't search in C++ here, with the remedy; None where it can."""
    weight = drafter.outer.weight
    numbers = DTYPES.get(weight.dtype)
    if not weight.is_cpu or numbers is None or any(n % numbers for n in weight.shape):
        return "it is written for a CPU, in float32, and in bfloat16 of even widths"
    return library.why_not()
