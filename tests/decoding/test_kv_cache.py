"""The cache holds what plain recomputation gives, whatever was appended, cut and kept."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.generate import Decoder
from helpers.decoding.kv_cache import CacheFullError, KVCache
from helpers.errors import CourseError
from tests.decoding.conftest import VOCABULARY


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
