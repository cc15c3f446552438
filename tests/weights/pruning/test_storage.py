"""Every form of a sparse weight is read back as it was, and takes the bytes that counting says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.errors import CourseError
from helpers.weights.pruning.sparsity import keep_best, keep_two_of_four
from helpers.weights.pruning.storage import FORMS, load_weights, save_weights, to_two_of_four


def sparse(rows, columns, form, seed=0, dtype=torch.bfloat16):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    keep = keep_two_of_four(weight.abs()) if form == "2:4" else keep_best(weight.abs(), 0.5)
    return weight * keep


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), rows=st.integers(1, 7), fours=st.integers(1, 9))
def test_what_is_written_is_read_again(form, seed, rows, fours):
    weight = sparse(rows, 4 * fours, form, seed)
    parts = FORMS[form].write(weight)
    assert torch.equal(FORMS[form].read(parts, tuple(weight.shape)), weight)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weight", [torch.zeros(3, 8), torch.tensor([[0.0, 0.0, 0.0, 2.0], [0.0, -0.0, 1.0, 0.0]])])
def test_rows_with_fewer_numbers_are_kept_too(form, weight):
    parts = FORMS[form].write(weight)
    assert torch.equal(FORMS[form].read(parts, tuple(weight.shape)), weight)


BITS = {"dense": 16, "a bit for each weight": 16 * 0.5 + 1, "columns (CSR)": (16 + 32) * 0.5, "2:4": 16 * 0.5 + 2 * 0.5}


@pytest.mark.parametrize("form", FORMS)
def test_files_have_the_bytes_that_counting_says(tmp_path, form):
    weights = {name: sparse(64, 512, form, seed) for seed, name in enumerate(("a.b", "a.c"))}
    size = save_weights(weights, form, tmp_path / "folder" / "file.safetensors")
    assert size == pytest.approx(2 * 64 * 512 * BITS[form] / 8, rel=0.03)
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    again = load_weights(shapes, form, tmp_path / "folder" / "file.safetensors")
    assert again.keys() == weights.keys() and all(torch.equal(again[name], weights[name]) for name in weights)


def test_half_the_weights_in_csr_take_more_than_all_of_them_dense():
    assert BITS["columns (CSR)"] > BITS["dense"] > BITS["a bit for each weight"] == BITS["2:4"]


def test_a_weight_that_is_not_two_of_four_is_refused():
    with pytest.raises(CourseError, match="isn't 2:4"):
        to_two_of_four(torch.tensor([[1.0, 2.0, 3.0, 0.0]]))
    with pytest.raises(CourseError, match="four divides"):
        to_two_of_four(torch.ones(1, 6))
