"""Steps are timed as often as asked, each arm with rows of its own, and leave the cache as it was."""

import pytest
import torch

from helpers.kernels.grouped_attention import install
from helpers.measuring.cost_model import Shape
from helpers.profiling import step_time
from helpers.profiling.step_parts import narrow, step_parts
from helpers.profiling.step_time import batch_step_seconds, step_seconds
from tests.tiny_models import KINDS, tiny


def test_every_count_of_rows_is_timed(model):
    found = step_seconds(model, (1, 4), context=16, rounds=3)
    assert {rows: len(seconds) for rows, seconds in found.items()} == {1: 3, 4: 3}
    assert all(s > 0 for seconds in found.values() for s in seconds)


def test_batches_take_turns_and_uneven_ones_get_a_mask(monkeypatch):
    seen = []
    real = step_time.Decoder.batch

    def watched(self, tokens, cache):
        seen.append((self.model.config._attn_implementation, cache.lengths))
        return real(self, tokens, cache)

    monkeypatch.setattr(step_time.Decoder, "batch", watched)
    arms = {"library": tiny(), "own": install(tiny())}
    found = batch_step_seconds(arms, 3, context=8, rounds=2)
    assert [len(seconds) for seconds in found.values()] == [2, 2]
    assert seen == [("sdpa", [7, 8, 8]), ("grouped_heads", [7, 8, 8])] * 4
    seen.clear()
    batch_step_seconds(arms, 3, context=8, rounds=1, uneven=False)
    assert {tuple(lengths) for _, lengths in seen} == {(8, 8, 8)}


def test_both_attentions_give_the_same_logits_in_a_batch():
    from helpers.decoding.forward import Decoder
    from helpers.decoding.kv_cache import KVCache

    said = []
    for model in (tiny(), install(tiny())):
        cache = KVCache.for_model(model, 16, rows=3)
        with torch.no_grad():
            Decoder(model).batch([[1, 2, 3], [4], [5, 6]], cache)
            said.append(torch.cat(Decoder(model).batch([[7], [8], [9]], cache)))
    torch.testing.assert_close(*said)


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


def test_a_step_is_foretold_from_its_parts(model):
    parts = step_parts({"it": model}, (1, 4), prompt=16, context=8, rounds=1)["it"]
    assert set(parts.layer) == set(parts.overhead) == {1, 4, 16}
    share = parts.weights / parts.layer_weights
    assert parts.seconds(4) == pytest.approx(parts.overhead[4] + share * parts.layer[4])
    assert parts.bytes_per_second() * parts.layer[1] == pytest.approx(parts.layer_weights * 8)  # float64
    assert parts.operations_per_second(4) * parts.layer[4] == pytest.approx(2 * 4 * parts.layer_weights)
