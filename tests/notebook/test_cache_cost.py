"""What notebook 00b prints of the cache is made from what was measured."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from helpers.decoding.kv_cache import KVCache, bytes_per_token
from helpers.kernels import grouped_attention, packed_linear
from helpers.notebook import cache_cost
from helpers.notebook.cache_cost import LIBRARYS, OURS, WITH, WITHOUT
from helpers.notebook.plots import use_style
from helpers.notebook.results import Results
from tests.tiny_models import tiny

plt.switch_backend("Agg")
use_style()


@pytest.fixture
def results(tmp_path):
    machine = {"cpu": "a", "cores": 2, "memory_gib": 8, "accelerator": None}
    yield Results("00b_kv_cache", "smoke", tmp_path, [], "0" * 16, "1" * 16, machine)
    plt.close("all")


def test_an_answer_without_a_cache_takes_longer_and_another_answer_is_seen(results, capsys):
    run = {WITH: ([5, 6, 7], [0.1, 0.02, 0.02]), WITHOUT: ([5, 6, 7], [0.1, 0.11, 0.12])}
    cache_cost.draw_answers([run, run])
    longer = cache_cost.read_answers(results, [run, run], 120)
    assert (
        longer.ratio == pytest.approx(0.33 / 0.14) and results.invariants["kv_cache.same_tokens_without_cache"]["holds"]
    )
    out = capsys.readouterr().out
    assert "120 tokens in, 3 out" in out and "took 1.20 times" in out
    cache_cost.read_answers(results, [run, run | {WITH: ([5, 6, 8], [0.1, 0.02, 0.02])}], 120)
    assert results.invariants["kv_cache.same_tokens_without_cache"] == {"holds": False, "count": 1, "of": 2}


def test_a_cache_takes_the_bytes_that_it_says(capsys):
    config = SimpleNamespace(num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, head_dim=64)
    cache_cost.show_cache_bytes({"this one": config}, bytes_per_token)
    assert "23,040" in (out := capsys.readouterr().out) and "92 MB" in out and "2.9 GB" in out


def test_appending_is_timed_in_caches_that_hold_as_much_as_they_should(capsys):
    held = []

    class Cache(KVCache):
        def update(self, keys, values, layer):
            held.append(keys.shape[2])
            return super().update(keys, values, layer)

    makers = {name: lambda n: Cache(layers=1, capacity=n + 1) for name in ("copied", "in place")}
    cache_cost.show_appending(makers, [4, 8], rounds=2)
    assert held == [4, 1, 4, 1, 8, 1, 8, 1] * 2 and "with 8 tokens held" in capsys.readouterr().out


def test_a_model_beside_another_shares_its_weights_and_attends_by_itself():
    model = packed_linear.install(tiny().float(), turns=0)
    other = grouped_attention.install(cache_cost.beside(model))
    assert {p.data_ptr() for p in other.parameters()} == {p.data_ptr() for p in model.parameters()}
    packed = [[m for m in each.modules() if isinstance(m, packed_linear.PackedLinear)] for each in (model, other)]
    assert packed[0] and all(one is two for one, two in zip(*packed, strict=True))
    assert other.config._attn_implementation == grouped_attention.NAME != model.config._attn_implementation
    ids = torch.tensor([[5, 9, 33, 2]])
    torch.testing.assert_close(other(ids).logits, model(ids).logits)


def test_the_gain_of_attention_is_the_library_s_time_over_ours(results, capsys):
    model = tiny().float()
    seconds = cache_cost.batch_steps({LIBRARYS: model, OURS: cache_cost.beside(model)}, 3, rounds=2)
    assert set(seconds) == {(arm, mask) for arm in (LIBRARYS, OURS) for mask in ("with a mask", "no mask")}
    assert all(len(each) == 2 for each in seconds.values())
    steps = {(LIBRARYS, "with a mask"): [3.0, 3.0], (OURS, "with a mask"): [1.0, 1.0]}
    steps |= {(LIBRARYS, "no mask"): [1.0, 1.0], (OURS, "no mask"): [1.0, 1.0]}
    cache_cost.show_attention_gains(results, {"float32": steps, "bfloat16": steps}, "a shape", 32)
    assert results.metrics["kv_cache.attention_speedup.batch_32"]["value"] == 3
    assert results.metrics["kv_cache.attention_speedup.batch_32.bf16.no_mask"]["value"] == 1
    assert "pays in both formats" in capsys.readouterr().out
