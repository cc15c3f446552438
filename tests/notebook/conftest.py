"""What tests of the notebooks' modules share: empty results, closed figures, and the server's tests' model."""

import matplotlib.pyplot as plt
import pytest

from helpers.notebook.results import Results
from tests.serving.conftest import model, tokenizer  # noqa: F401

MACHINE = {"cpu": "a", "cores": 2, "memory_gib": 8, "accelerator": None}


@pytest.fixture
def results(tmp_path, request):
    """Empty ones, of the notebook that the test's module names."""
    return Results(request.module.NOTEBOOK, "smoke", tmp_path, [], "0" * 16, "1" * 16, MACHINE)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")
