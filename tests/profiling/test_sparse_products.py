"""Sparse products compute what dense ones do, are timed beside them, and are left out with a reason elsewhere."""

import pytest
import torch

from helpers.errors import CourseError
from helpers.profiling import sparse_products
from helpers.profiling.sparse_products import csr_seconds, two_of_four_seconds, why_no_sparse_units
from helpers.weights.pruning.sparsity import keep_best


def test_a_sparse_product_is_the_dense_one():
    weight, x = torch.randn(16, 24), torch.randn(3, 24)
    weight *= keep_best(torch.rand_like(weight), 0.7)
    csr = sparse_products._csr(weight)
    assert csr._nnz() == int((weight != 0).sum())
    torch.testing.assert_close(sparse_products._times(csr, x).T, sparse_products._linear(weight, x))


def test_every_way_is_timed_for_every_number_of_tokens():
    seconds = csr_seconds(32, (0.5, 0.9), (1, 4), rounds=3)
    assert set(seconds) == {(way, n) for way in ("dense", "0.5", "0.9") for n in (1, 4)}
    assert all(len(times) == 3 and min(times) > 0 for times in seconds.values())


def test_torch_without_sparse_products_says_so(monkeypatch):
    def nothing(weight, x):
        raise RuntimeError("Calling addmm on a sparse CPU tensor requires Linux platform\nmore")

    monkeypatch.setattr(sparse_products, "_times", nothing)
    with pytest.raises(CourseError, match=r"requires Linux platform.*leave them out"):
        csr_seconds(8, (0.5,), (1,), rounds=1)


def test_a_cpu_has_no_sparse_units():
    assert "NVIDIA GPU" in why_no_sparse_units("cpu")
    with pytest.raises(CourseError, match="Leave 2:4 kernels out"):
        two_of_four_seconds(64, (1,), rounds=1, device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="2:4 needs a GPU")
def test_two_of_four_is_timed_on_a_gpu():
    seconds = two_of_four_seconds(256, (1, 64), rounds=3)
    assert set(seconds) == {(way, n) for way in ("dense", "2:4") for n in (1, 64)}
