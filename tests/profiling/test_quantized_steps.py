"""Arms of several formats, the bytes that their steps read, and their times."""

import pytest

from helpers.errors import CourseError
from helpers.kernels.fastest_step import fastest_step
from helpers.kernels.native.native_llama import NativeLlama
from helpers.profiling import quantized_steps as module
from helpers.profiling.quantized_steps import ARMS, QuantizedSteps, bytes_read, quantized_arms, time_quantized_steps
from helpers.weights.quantization.integer import install
from tests.kernels.test_quantized_step import llama
from tests.tiny_models import tiny

WEIGHTS = 2 * (128 * 64 + 64 * 64 + 192 * 64 + 64 * 96)  # of the tiny Llama's linear layers
ROWS = 2 * (128 + 64 + 192 + 64)  # their outputs
HEAD, VOCABULARY = 97 * 64, 97


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))


@pytest.fixture(scope="module")
def arms():
    return quantized_arms(llama(intermediate_size=128), group=32, turns=0)


def test_the_bytes_that_a_step_reads(arms):
    """Of llama(): PyTorch's kernels read what there is, the C++ whole tiles, of 32 rows."""
    weights, rows = 2 * (256 * 64 + 64 * 128 + 256 * 64 + 64 * 128), 2 * (256 + 64 + 256 + 64)
    head, in_tiles = HEAD + 2 * VOCABULARY, 128 * 64 + 4 * 128  # eight bits, and its scales
    assert {name: bytes_read(arm) for name, arm in arms.items() if name not in ("float32", "bf16")} == {
        "int8": weights + 4 * rows + in_tiles,
        "int4": weights // 2 + 2 * weights // 32 + in_tiles,
        "nf4": weights // 2 + 4 * weights // 64 + in_tiles,
        "w8a8": weights + 8 * rows + in_tiles,
        "torch_int8": weights + 2 * rows + head,
        "torch_int4": weights // 2 + 4 * weights // 32 + head,  # a scale and an offset of two bytes for 32 weights
        "torch_w8a8": weights + 4 * rows + head,
    }
    assert all(isinstance(arms[name], NativeLlama) for name in ("float32", "bf16", "int8", "int4", "nf4", "w8a8"))
    assert bytes_read(arms["float32"]) == 2 * bytes_read(arms["bf16"]) == 4 * (weights + 128 * 64)


def test_the_bytes_of_models_of_the_library():
    model = tiny("qwen2").bfloat16()  # its output layer is no embedding
    assert bytes_read(model) == bytes_read(fastest_step(model, 0)) == 2 * (WEIGHTS + HEAD)
    assert bytes_read(install(tiny(), 8)) == WEIGHTS + 4 * (ROWS) + 8 * HEAD


def test_every_arm_is_timed_and_slow_ones_less_often(arms):
    timed = time_quantized_steps(arms, (1, 4), prompt=6, context=5, rounds=9, slow={"torch_w8a8"})
    assert list(timed) == list(ARMS)
    for name, steps in timed.items():
        rounds = {n: len(seconds) for n, seconds in steps.seconds.items()}
        assert rounds == dict.fromkeys((1, 4), 3 if name == "torch_w8a8" else 9)
        assert len(steps.prefill) == 3 and min(steps.prefill) > 0 and steps.weight_bytes == bytes_read(arms[name])
    assert timed["int8"].speedup_over(timed["bf16"], 4).n == 9
    assert timed["torch_w8a8"].speedup_over(timed["bf16"], 4).n == 3


def test_the_figures_are_of_the_right_arm_and_size():
    fast = QuantizedSteps("int8", 100, {1: [1.0, 1.0, 9.0], 8: [2.0] * 3}, 256, [4.0] * 3)
    base = QuantizedSteps("bf16", 200, {1: [3.0, 3.0, 3.0, 30.0], 8: [3.0] * 4}, 256, [2.0] * 4)
    assert fast.median() == 1.0 and fast.median(256) == 4.0 and fast.share_of(200.0) == 0.5
    assert fast.speedup_over(base).ratio == 3.0 and base.speedup_over(fast).ratio == pytest.approx(1 / 3)
    assert fast.speedup_over(base, 8).ratio == 1.5 and fast.speedup_over(base, 256).ratio == 0.5


def test_an_unknown_arm_is_refused(monkeypatch):
    monkeypatch.setattr(module, "fastest_step", None)  # nothing is made
    with pytest.raises(CourseError, match="no arm int3 here; there are float32, bf16, int8,"):
        quantized_arms(tiny(), ["bf16", "int3"])
