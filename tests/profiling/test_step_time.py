"""Steps are timed as often as asked, each arm with sequences of its own, and leave the cache as it was."""

import pytest
import torch

from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.kv_cache import KVCache
from helpers.kernels.grouped_attention import install
from helpers.measuring.cost_model import Shape
from helpers.profiling import step_time
from helpers.profiling.step_parts import narrow, step_parts
from helpers.profiling.step_time import batch_step_seconds, step_seconds
from tests.tiny_models import KINDS, tiny


def test_every_number_of_tokens_is_timed(model):
    times = step_seconds(model, (1, 4), context=16, rounds=3)
    assert {n: len(seconds) for n, seconds in times.items()} == {1: 3, 4: 3}
    assert all(s > 0 for seconds in times.values() for s in seconds)


def test_batches_take_turns_and_uneven_ones_get_a_mask(monkeypatch):
    seen = []

    class Watched(Forward):
        def __call__(self, feeds, cache):
            seen.append((self.model.config._attn_implementation, list(cache.lengths.values())))
            return super().__call__(feeds, cache)

    monkeypatch.setattr(step_time, "Forward", Watched)
    models = {"library": tiny(), "own": install(tiny())}
    times = batch_step_seconds(models, 3, context=8, rounds=2)
    assert [len(seconds) for seconds in times.values()] == [2, 2]
    assert sorted(seen) == sorted([("sdpa", [7, 8, 8]), ("grouped_heads", [7, 8, 8])] * 4)
    seen.clear()
    batch_step_seconds(models, 3, context=8, rounds=1, uneven=False)
    assert {tuple(lengths) for _, lengths in seen} == {(8, 8, 8)}


def test_both_attentions_give_the_same_logits_in_a_batch():
    logits = []
    for model in (tiny(), install(tiny())):
        cache, forward = KVCache.for_model(model, 16, 3), Forward(model)
        forward([Feed(0, [1, 2, 3]), Feed(1, [4]), Feed(2, [5, 6])], cache)
        readings = forward([Feed(0, [7]), Feed(1, [8]), Feed(2, [9])], cache)
        logits.append(torch.cat([reading.logits for reading in readings]))
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_narrow_models_of_every_kind(kind):
    model = tiny(kind)
    assert len(batch_step_seconds({"it": model}, 2, context=8, rounds=1)["it"]) == 1
    thin = narrow(model)
    assert Shape.of(thin).layers == Shape.of(model).layers
    assert Shape.of(thin).kv_bytes_per_token == Shape.of(model).kv_bytes_per_token
    if kind != "falcon":
        assert Shape.of(thin).parameters < Shape.of(model).parameters
        assert narrow(install(tiny(kind))).config._attn_implementation == "grouped_heads"


def test_a_step_is_predicted_from_its_parts(model):
    parts = step_parts({"it": model}, (1, 4), prompt=16, context=8, rounds=1)["it"]
    assert set(parts.layer) == set(parts.overhead) == {1, 4, 16}
    share = parts.weights / parts.layer_weights
    assert parts.seconds(4) == pytest.approx(parts.overhead[4] + share * parts.layer[4])
    assert parts.bytes_per_second() * parts.layer[1] == pytest.approx(parts.layer_weights * 8)  # float64
    assert parts.operations_per_second(4) * parts.layer[4] == pytest.approx(2 * 4 * parts.layer_weights)
