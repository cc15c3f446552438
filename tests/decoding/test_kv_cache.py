"""The cache holds what plain recomputation gives, whatever was appended, cropped, kept and freed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding import masks
from helpers.decoding.cache_check import equals_recomputation
from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.sequence_cache import CacheFullError
from helpers.decoding.support import support_of
from helpers.errors import CourseError
from helpers.kernels.grouped_attention import install
from tests.tiny_models import KINDS, VOCABULARY, tiny


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_append_crop_and_keep_equal_recomputation(model, data):
    forward, cache, known = Forward(model), KVCache.for_model(model, 64), []
    token = st.integers(0, VOCABULARY - 1)
    for _ in range(data.draw(st.integers(1, 6))):
        new = data.draw(st.lists(token, min_size=1, max_size=6))
        [read] = forward([Feed(0, new, num_logits=len(new))], cache)
        known += new
        with torch.no_grad():
            wanted = model(torch.tensor([known])).logits[0, -len(new) :]
        torch.testing.assert_close(read.logits, wanted, atol=1e-9, rtol=1e-9)
        length = data.draw(st.integers(1, len(known)))
        cache.crop(length)
        known = known[:length]
        assert cache.length == length


def test_keep_moves_one_path_together():
    cache = KVCache(1, 8)
    states = torch.arange(6.0).view(1, 1, 6, 1)
    cache.update(states, states + 10, 0)
    cache.keep(0, 2, [0, 3])
    assert cache.length == 4
    keys, values = cache.update(torch.full((1, 1, 1, 1), 9.0), torch.full((1, 1, 1, 1), 19.0), 0)
    assert keys.flatten().tolist() == [0, 1, 2, 5, 9] and values.flatten().tolist() == [10, 11, 12, 15, 19]


def test_it_keeps_no_more_than_it_holds():
    cache = KVCache(1, 8)
    cache.update(torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1), 0)
    for too_much in (lambda: cache.crop(4), lambda: cache.keep(0, 2, [0, 1])):
        with pytest.raises(CourseError, match="holds 3 tokens"):
            too_much()
    with pytest.raises(CourseError, match="no sequence 'other'"):
        cache.crop(1, "other")
    for wrong in (lambda: cache.crop(-1), lambda: cache.keep(0, 1, [-1])):
        with pytest.raises(CourseError, match="from 0 up"):
            wrong()
    cache.reset()
    assert cache.length == 0


def test_bytes_are_those_of_what_is_held():
    cache = KVCache(2, 100)
    for layer in range(2):
        cache.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), layer)
    assert cache.nbytes == 2 * 2 * (2 * 3 * 4) * 4


def test_a_full_cache_says_so_before_anything_has_changed():
    cache = KVCache(1, 4, max_sequences=2)
    cache.begin([Feed("a", [1, 2, 3])])
    assert cache.can_append("a", 1) and not cache.can_append("a", 2) and cache.can_append("b", 4)
    with pytest.raises(CacheFullError, match="holds 4 tokens and 5 were needed"):
        cache.begin([Feed("b", [1]), Feed("a", [1, 2])])
    assert cache.lengths == {"a": 3} and not cache.can_append("b", 5)
    cache.begin([Feed("b", [1])])
    assert not cache.can_append("c", 1)
    with pytest.raises(CacheFullError, match="made for 2 sequences and has 2, 1 more came"):
        cache.begin([Feed("a", [1]), Feed("c", [1])])
    assert cache.lengths == {"a": 3, "b": 1}
    with pytest.raises(CacheFullError, match="made for 1 sequences"):
        KVCache(1, 2).update(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), 0)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sequences_that_come_read_and_leave_equal_recomputation(kind, own):
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


def planted(monkeypatch, owner, name, mistake):
    model = tiny()
    support_of(model)  # tried before the mistake is there
    monkeypatch.setattr(owner, name, mistake)
    return not all(equals_recomputation(model, seed) for seed in range(20))


def test_a_sequence_that_sees_one_token_too_many_is_caught(monkeypatch):
    right = masks.step_mask

    def too_far(feeds, starts, window=None):
        seen = right(feeds, starts, window)
        return seen | seen.roll(1, -1)

    assert planted(monkeypatch, masks, "step_mask", too_far)


def test_what_fills_up_taken_for_a_token_is_caught(monkeypatch):
    right = KVCache._places

    def places(self, feeds, starts):
        made = right(self, feeds, starts)
        if made.source is None:
            return made
        feed, token = made.source
        filled_up = max(map(len, feeds)) - torch.tensor([len(f) for f in feeds])
        return made._replace(source=(feed, token - filled_up[feed]))

    assert planted(monkeypatch, KVCache, "_places", places)


def test_a_sequence_that_leaves_its_place_to_the_next_unmoved_is_caught(monkeypatch):
    def free(self, sequence):
        order = [s for s in self.blocks if s != sequence]
        self.blocks = {other: [place] for place, other in enumerate(order)}
        self.lengths = {other: self.lengths[other] for other in order}

    assert planted(monkeypatch, KVCache, "free", free)


def test_offsets_that_are_taken_for_the_first_ones_are_caught(monkeypatch):
    right = KVCache.keep

    def keep(self, sequence, start, offsets):
        right(self, sequence, start, range(len(offsets)))

    assert planted(monkeypatch, KVCache, "keep", keep)


def filled(lengths, max_sequences=3):
    """A cache that holds lengths[s] keys of value s for each sequence s."""
    cache = KVCache(1, 8, max_sequences)
    for sequence, length in enumerate(lengths):
        cache.begin([Feed(sequence, range(length))])
        cache.update(torch.full((1, 1, length, 1), float(sequence)), torch.zeros(1, 1, length, 1), 0)
    return cache


def test_the_last_sequence_takes_the_place_of_one_that_leaves():
    cache = filled([1, 3, 2])
    cache.free(0)
    assert cache.lengths == {2: 2, 1: 3} and cache.layers[0].keys[0, 0, :2].flatten().tolist() == [2, 2]
    cache.free(1)
    assert cache.lengths == {2: 2}
    with pytest.raises(CourseError, match="no sequence 1"):
        cache.free(1)


def test_one_sequence_keeps_its_path_and_the_others_stay():
    cache = filled([3, 3], 2)
    cache.layers[0].keys[0, 0, :3, 0] = torch.tensor([5.0, 6.0, 7.0])
    cache.keep(0, 1, [1])
    assert cache.lengths == {0: 2, 1: 3} and cache.layers[0].keys[0, 0, :2, 0].tolist() == [5, 7]
    cache.begin([Feed(0, [9]), Feed(1, [9])])
    keys, _ = cache.update(torch.full((2, 1, 1, 1), 9.0), torch.zeros(2, 1, 1, 1), 0)
    assert keys[0, 0, :3, 0].tolist() == [5, 7, 9] and keys[1, 0, :, 0].tolist() == [1, 1, 1, 9]


@torch.inference_mode()
def test_a_nan_of_the_last_user_does_not_reach_the_next():
    model = tiny()
    cache, forward = KVCache.for_model(model, 32, 3), Forward(model)
    forward([Feed("a", range(12)), Feed("b", range(9))], cache)
    for layer in cache.layers:  # an overflow, say
        layer.keys[1, :, :9] = layer.values[1, :, :9] = torch.nan
    cache.free("b")
    forward([Feed("c", [5, 6, 7])], cache)
    assert all(read.logits.isfinite().all() for read in forward([Feed("a", [1]), Feed("c", [2])], cache))


def test_a_step_that_trains_after_one_that_does_not():
    model = tiny()
    cache = KVCache.for_model(model, 32, 2)
    bias = [masks.step_bias([Feed(0, [1, 2], [-1])], [3], None, torch.float64, torch.device("cpu"))]
    with torch.inference_mode():
        masks.step_bias([Feed(0, [1, 2, 3], [-1, 0])], [3], None, torch.float64, torch.device("cpu"))
    bias.append(masks.step_bias([Feed(0, [1, 2, 3], [-1, 0])], [3], None, torch.float64, torch.device("cpu")))
    assert not any(each.is_inference() for each in bias)
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]), past_key_values=cache)
    model(torch.tensor([[4]]), past_key_values=cache).logits.sum().backward()
