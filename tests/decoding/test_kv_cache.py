"""The cache holds what plain recomputation gives, whatever was appended, cut and kept."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.cache_check import equals_recomputation
from helpers.decoding.forward import Decoder
from helpers.decoding.kv_cache import CacheFullError, KVCache
from helpers.decoding.masks import rows_mask
from helpers.errors import CourseError
from helpers.kernels.grouped_attention import install
from tests.tiny_models import KINDS, VOCABULARY, tiny


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_append_cut_and_keep_equal_recomputation(model, data):
    decoder, cache, known = Decoder(model), KVCache.for_model(model, 64), []
    token = st.integers(0, VOCABULARY - 1)
    with torch.no_grad():
        for _ in range(data.draw(st.integers(1, 6))):
            new = data.draw(st.lists(token, min_size=1, max_size=6))
            logits, _ = decoder.step(new, cache)
            known += new
            wanted = model(torch.tensor([known])).logits[0, -len(new) :]
            torch.testing.assert_close(logits, wanted, atol=1e-9, rtol=1e-9)
            length = data.draw(st.integers(1, len(known)))
            cache.cut(length)
            known = known[:length]
            assert cache.length == length


def test_keep_moves_one_path_together():
    cache = KVCache(1, 8)
    states = torch.arange(6.0).view(1, 1, 6, 1)
    cache.update(states, states + 10, 0)
    cache.keep(2, [0, 3])
    assert cache.length == 4
    keys, values = cache.update(torch.full((1, 1, 1, 1), 9.0), torch.full((1, 1, 1, 1), 19.0), 0)
    assert keys.flatten().tolist() == [0, 1, 2, 5, 9] and values.flatten().tolist() == [10, 11, 12, 15, 19]


def test_it_keeps_no_more_than_it_holds():
    cache = KVCache(1, 8)
    cache.update(torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1), 0)
    for cut in (lambda: cache.cut(4), lambda: cache.keep(2, [0, 1])):
        with pytest.raises(CourseError, match="holds 3 tokens"):
            cut()
    cache.reset()
    assert cache.length == 0


def test_bytes_are_those_of_what_is_held():
    cache = KVCache(2, 100)
    for layer in range(2):
        cache.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), layer)
    assert cache.nbytes == 2 * 2 * (2 * 3 * 4) * 4


def test_a_full_cache_says_so():
    with pytest.raises(CacheFullError, match="holds 2 tokens and 3 were needed"):
        KVCache(1, 2).update(torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1), 0)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_join_read_and_leave_equal_recomputation(kind, own):
    model = install(tiny(kind)) if own else tiny(kind)
    assert all(equals_recomputation(model, seed) for seed in range(20))


@pytest.mark.parametrize("own", [False, True])
def test_what_memory_held_before_does_not_matter(monkeypatch, own):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)  # new memory is full of NaN
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.empty(3).isnan().all()
        model = install(tiny()) if own else tiny()
        assert all(equals_recomputation(model, seed) for seed in range(20))
    finally:
        torch.use_deterministic_algorithms(False)


def planted(monkeypatch, name, mistake):
    monkeypatch.setattr(f"helpers.decoding.{name}", mistake)
    return not all(equals_recomputation(tiny(), seed) for seed in range(20))


def test_a_row_that_sees_one_token_too_many_is_caught(monkeypatch):
    def too_far(lengths, n, window=None):
        return rows_mask([length + 1 for length in lengths], n)[..., :-1]

    assert planted(monkeypatch, "forward.rows_mask", too_far)


def test_a_row_that_keeps_what_filled_it_up_is_caught(monkeypatch):
    def batch(self, tokens, cache):  # as it is, but for the last cut
        with monkeypatch.context() as inside:
            inside.setattr(KVCache, "cut", lambda self, length, row=None: None)
            return real(self, tokens, cache)

    real = Decoder.batch
    assert planted(monkeypatch, "generate.Decoder.batch", batch)


def test_a_row_that_leaves_its_cache_to_the_next_is_caught(monkeypatch):
    def leave(self, row):
        for layer in self.layers:
            layer.lengths[row] = layer.lengths[-1]
            layer.lengths.pop()

    assert planted(monkeypatch, "kv_cache.KVCache.leave", leave)


def test_the_last_row_takes_the_place_of_one_that_leaves():
    cache = filled([1, 3, 2])
    cache.leave(0)
    assert cache.lengths == [2, 3] and cache.layers[0].keys[0, 0, :2].flatten().tolist() == [2, 2]
    cache.leave(1)
    assert cache.lengths == [2]


def filled(lengths, rows=3):
    """A cache whose row r holds lengths[r] keys of value r."""
    cache = KVCache(1, 8, rows)
    for r, length in enumerate(lengths):
        alone = KVCache(1, 8)
        alone.update(torch.full((1, 1, length, 1), float(r)), torch.zeros(1, 1, length, 1), 0)
        cache.join(alone)
    return cache


def test_rows_it_has_no_room_for_are_refused_and_nothing_is_lost():
    cache = filled([1, 3, 2])
    with pytest.raises(CacheFullError, match="holds 3 rows, 3 of them taken"):
        cache.join(filled([1]))
    small = KVCache(1, 2)
    with pytest.raises(CacheFullError, match="holds 2 tokens and 3 were needed"):
        small.join(filled([3]))
    with pytest.raises(CourseError, match="there is no row 3"):
        cache.leave(3)
    with pytest.raises(CourseError, match="holds 3 rows and 2 were given"):
        cache.update(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), 0)
    with pytest.raises(CacheFullError, match="made for 1 rows and 2 came"):
        KVCache(1, 2).update(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), 0)
    assert cache.lengths == [1, 3, 2] and cache.nbytes == 6 * 2 * 4


def test_one_row_keeps_its_path_and_the_others_stay():
    cache = filled([3, 3])
    cache.layers[0].keys[0, 0, :3, 0] = torch.tensor([5.0, 6.0, 7.0])
    cache.keep(1, [1], row=0)
    assert cache.lengths == [2, 3] and cache.layers[0].keys[0, 0, :2, 0].tolist() == [5, 7]
    keys, _ = cache.update(torch.full((2, 1, 1, 1), 9.0), torch.zeros(2, 1, 1, 1), 0)
    assert keys[0, 0, :3, 0].tolist() == [5, 7, 9] and keys[1, 0, :, 0].tolist() == [1, 1, 1, 9]


def test_a_nan_of_the_last_user_does_not_reach_the_next():
    model, cache = tiny(), KVCache.for_model(tiny(), 32, 3)
    decoder = Decoder(model)

    def join(*ids):
        alone = KVCache.for_model(model, 32)
        decoder.step(ids, alone)
        cache.join(alone)

    with torch.inference_mode():
        join(*range(12))
        join(*range(9))
        for layer in cache.layers:  # an overflow, say
            layer.keys[1, :, :9] = layer.values[1, :, :9] = torch.nan
        cache.leave(1)
        join(5, 6, 7)
        assert all(logits.isfinite().all() for logits in decoder.batch([[1], [2]], cache))


def test_a_step_that_trains_after_one_that_does_not():
    model, decoder = tiny(), Decoder(tiny())
    caches = [KVCache.for_model(model, 32, 2) for _ in range(2)]
    for cache in caches:
        for length in (3, 5):
            alone = KVCache.for_model(model, 32)
            with torch.no_grad():
                decoder.step(list(range(length)), alone)
            cache.join(alone)
    with torch.inference_mode():
        decoder.batch([[1], [2]], caches[0])
    decoder.batch([[1], [2]], caches[1])[0].sum().backward()


def test_negative_numbers_are_refused():
    cache = filled([3])
    for wrong in (lambda: cache.cut(-1), lambda: cache.keep(1, [-1])):
        with pytest.raises(CourseError, match="from 0 up"):
            wrong()
    with pytest.raises(CourseError, match="holds 1 rows and 2 were given"):
        Decoder(tiny()).batch([[1], [2]], cache)
