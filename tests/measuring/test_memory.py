"""Memory is in GiB, and weights count once."""

import resource
import subprocess
import sys

import pytest
import torch

from helpers.files import ROOT
from helpers.measuring.memory import peak_memory, weight_bytes


def test_memory_is_reported():
    assert 0.05 < peak_memory()["process"] < 100


def test_shared_weights_count_once():
    model = torch.nn.ModuleList([torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)])
    assert weight_bytes(model) == 128
    model[1].weight = model[0].weight
    assert weight_bytes(model.half()) == 32


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere getrusage begins anew")
def test_a_process_does_not_begin_with_the_peak_of_the_one_that_started_it():
    large = torch.ones(400 * 2**20 // 4)
    code = """
import importlib.util, resource
spec = importlib.util.spec_from_file_location("memory", "helpers/measuring/memory.py")
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)
held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(held, memory.peak_memory_gib(), sep=";")
"""
    code = (
        "import sys, types; sys.modules['torch'] = types.SimpleNamespace(nn=types.SimpleNamespace(Module=object))"
        + code
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    by_getrusage, own = map(float, done.stdout.split(";"))
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert own < 0.2 < len(large) * 4 / 2**30 < here
    assert by_getrusage > 0.3  # the mistake that this test is about
