"""The drafter's search in C++ against the one in PyTorch."""

import math

import pytest
import torch

from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.kernels.fastest_step import fastest_drafter
from helpers.kernels.native import library, native_drafter
from helpers.kernels.native.native_drafter import NativeDrafter
from helpers.kernels.packed_linear import PackedLinear
from helpers.speculation.drafted_tree import DraftedTree
from helpers.speculation.recurrent_drafter import RecurrentDrafter

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=str(library.why_not()))


def drafter_of(num_ids, hidden=48, width=40, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    tables = torch.randn(2, 200, hidden, dtype=dtype)
    drafter = RecurrentDrafter(*tables, torch.randperm(200)[:num_ids].sort().values, width).eval()
    torch.nn.init.normal_(drafter.outer.weight, std=0.2)
    return drafter


@torch.no_grad()
@pytest.mark.parametrize("num_ids, width, threads", [(129, 4, 1), (33, 6, 2), (5, 5, 3), (200, 1, 2)])
def test_it_finds_what_pytorch_finds(num_ids, width, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for seed in range(5):
            drafter = drafter_of(num_ids, seed=seed)
            settings = (torch.randn(1, 48), 3, 4, 3, width, math.log(0.02))
            columns, parents, chances = NativeDrafter(drafter).beam_search(*settings)
            wanted = drafter.beam_search(*settings)
            assert columns == wanted[0] and parents == wanted[1]
            torch.testing.assert_close(torch.tensor(chances), torch.tensor(wanted[2]), atol=1e-4, rtol=1e-4)
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_all_probabilities_of_a_depth_add_up_to_one():
    drafter = drafter_of(20)
    _, parents, chances = NativeDrafter(drafter).beam_search(torch.randn(1, 48), 0, 2, 3, 20, -math.inf)
    firsts = torch.tensor(chances).exp()[torch.tensor(parents) == -1]
    assert len(firsts) == 20 and float(firsts.sum()) == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_bfloat16_is_close_to_float32():
    exact, rounded = drafter_of(150), drafter_of(150).bfloat16()
    state = torch.randn(1, 48).bfloat16()
    assert rounded.inner.weight.dtype == torch.bfloat16
    settings = (3, 1, 3, 8, -math.inf)
    columns, _, chances = NativeDrafter(rounded).beam_search(state, *settings)
    wanted_columns, _, wanted = NativeDrafter(exact).beam_search(state.float(), *settings)
    assert len(set(columns) & set(wanted_columns)) >= 6
    assert max(chances) == pytest.approx(max(wanted), abs=0.15)


def test_where_it_cannot_be_had_pytorch_searches(monkeypatch):
    assert isinstance(fastest_drafter(drafter_of(50)), NativeDrafter)
    for other in (drafter_of(50, width=41, dtype=torch.bfloat16), drafter_of(50).double()):
        with pytest.raises(CourseError, match="in bfloat16 of even widths"):
            NativeDrafter(other)
    monkeypatch.setattr(native_drafter.library, "why_not", lambda: "no compiler")
    with pytest.raises(CourseError, match="no compiler"):
        NativeDrafter(drafter_of(50))
    found = fastest_drafter(drafter_of(50), turns=0)
    assert isinstance(found, RecurrentDrafter) and isinstance(found.inner, PackedLinear)


@torch.no_grad()
def test_a_tree_is_the_same_by_either():
    drafter, state = drafter_of(150), torch.randn(1, 48)
    sequence = Sequence([3, int(drafter.token_ids[7])], max_new_tokens=9)
    [tree], [same] = (DraftedTree(each).propose([sequence], state) for each in (NativeDrafter(drafter), drafter))
    assert tree.tokens == same.tokens and tree.parents == same.parents and len(tree.tokens) > 4
