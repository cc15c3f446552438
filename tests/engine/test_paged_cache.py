"""A cache in blocks holds what plain recomputation gives, shares beginnings, and gives back what it doesn't need."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.cache_check import equals_recomputation
from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.sequence_cache import CacheFullError
from helpers.engine.blocks import BlockPool
from helpers.engine.paged_cache import PagedCache
from helpers.errors import CourseError
from tests.tiny_models import tiny


def in_blocks(model, capacity, max_sequences, block_size=4):
    return PagedCache.for_model(model, max_sequences * capacity // block_size, block_size)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3"])
def test_it_holds_what_recomputation_gives(kind):
    model = tiny(kind)
    assert all(equals_recomputation(model, seed, make=in_blocks) for seed in range(15))


@pytest.mark.parametrize(("name", "mistake"), [
    ("index", lambda right: lambda self, sequence_id, places: right(self, sequence_id, [p ^ 1 for p in places])),
    ("_places", lambda right: lambda self, feeds, starts: right(self, feeds, starts)._replace(
        table=right(self, feeds, starts).table.flip(0))),
])  # fmt: skip
def test_a_token_in_the_wrong_place_is_caught(monkeypatch, name, mistake):
    model = tiny()
    assert equals_recomputation(model, 0, make=in_blocks)
    monkeypatch.setattr(PagedCache, name, mistake(getattr(PagedCache, name)))
    assert not all(equals_recomputation(model, seed, make=in_blocks) for seed in range(20))


def read(model, cache, sequence_id, tokens):
    [reading] = Forward(model)([Feed(sequence_id, tokens)], cache)
    cache.keep(sequence_id, cache.lengths[sequence_id], ())
    return reading.logits[-1]


def test_a_prompt_that_begins_as_another_takes_its_full_blocks_and_reads_the_last_token():
    model, text = tiny(), [5, 17, 60, 8, 33, 9, 2, 40]
    cache = PagedCache.for_model(model, 8, 4)
    logits = read(model, cache, "a", text)
    assert cache.share_prefix("b", text) == 4  # never all of it
    assert cache.share_prefix("c", [*text, 7]) == 8
    assert cache.share_prefix("d", [5, 17, 60, 9, 1]) == 0 and "d" not in cache.lengths
    assert len(cache.pool.free) == 6
    torch.testing.assert_close(read(model, cache, "b", text[4:]), logits)
    cache.free("a")
    torch.testing.assert_close(read(model, cache, "c", [7]), read(model, cache, "e", [*text, 7]))


def test_a_beginning_that_nobody_uses_is_found_until_its_blocks_are_needed():
    model, text = tiny(), list(range(1, 10))
    cache = PagedCache.for_model(model, 3, 4)
    read(model, cache, "a", text)
    cache.free("a")
    assert cache.share_prefix("b", text) == 8
    cache.free("b")
    read(model, cache, "c", [90, 91, 92, 93, 94])  # takes the last of its blocks first
    assert cache.share_prefix("b", text) == 4


def test_a_shared_block_is_copied_before_it_is_written():
    model, text = tiny(), [5, 17, 60, 8, 33]
    cache = PagedCache.for_model(model, 6, 4)
    read(model, cache, "a", text)
    cache.share_prefix("b", text)
    cache.crop(2, "b")
    other = read(model, cache, "b", [7, 7, 7])
    torch.testing.assert_close(other, model(torch.tensor([[5, 17, 7, 7, 7]])).logits[0, -1])
    torch.testing.assert_close(read(model, cache, "a", [9]), model(torch.tensor([[*text, 9]])).logits[0, -1])
    assert cache.share_prefix("d", [*text, 1]) == 4  # a's block is as it was


def test_a_block_that_is_written_again_is_not_found_by_what_it_held():
    model = tiny()
    cache = PagedCache.for_model(model, 4, 4)
    read(model, cache, "a", [1, 2, 3, 4, 5])
    cache.crop(3, "a")
    read(model, cache, "a", [9])
    assert cache.share_prefix("b", [1, 2, 3, 4, 5]) == 0 and cache.share_prefix("c", [1, 2, 3, 9, 5]) == 4


def test_guesses_that_were_wrong_give_their_blocks_back():
    model = tiny()
    cache = PagedCache.for_model(model, 4, 4)
    Forward(model)([Feed(0, [1, 2, 3, *range(4, 14)], range(-1, 9))], cache)
    assert not cache.pool.free
    cache.keep(0, 3, [0, 1])
    assert len(cache.pool.free) == 2 and cache.tokens[0] == [1, 2, 3, 4, 5]


def test_an_interrupted_step_leaves_everything_as_it_was(monkeypatch):
    model = tiny()
    cache, forward = PagedCache.for_model(model, 4, 4), Forward(model)
    read(model, cache, "a", [1, 2, 3])

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(model, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            forward([Feed("a", [4, 5]), Feed("b", [6])], cache)
    assert cache.lengths == {"a": 3} and cache.tokens == {"a": [1, 2, 3]} and len(cache.pool.free) == 3
    torch.testing.assert_close(read(model, cache, "a", [4]), model(torch.tensor([[1, 2, 3, 4]])).logits[0, -1])


def test_without_a_block_nothing_changes():
    model = tiny()
    cache = PagedCache.for_model(model, 2, 4)
    read(model, cache, "a", [1, 2, 3])
    assert cache.can_append("a", 5) and not cache.can_append("a", 6) and not cache.can_append("b", 5)
    with pytest.raises(CacheFullError, match="has 1 free blocks of 4 tokens, 2 were needed"):
        cache.begin([Feed("a", [4, 5]), Feed("b", [1])])
    assert cache.lengths == {"a": 3} and cache.tokens == {"a": [1, 2, 3]}
    with pytest.raises(CourseError, match="one block of one token at least"):
        PagedCache(1, 0)


@torch.inference_mode()
def test_a_nan_of_one_sequence_stays_with_it():
    model = tiny()
    cache = PagedCache.for_model(model, 3, 4)
    read(model, cache, "a", [1, 2, 3])
    for layer in cache.layers:
        layer.keys[cache.blocks["a"]] = torch.nan
        layer.values[cache.blocks["a"]] = torch.nan
    cache.free("a")
    for name in "bc":
        assert read(model, cache, name, [5, 6]).isfinite().all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=15))
def test_blocks_are_those_that_the_tokens_need(parts):
    cache = PagedCache(1, 40, 4)
    for sequence_id, n in parts:
        cache.begin([Feed(sequence_id, range(n))])
        cache.update(torch.zeros(1, 1, n, 1), torch.zeros(1, 1, n, 1), 0)
        cache.keep(sequence_id, cache.lengths[sequence_id] - n // 2, ())
        used = sum(cache.blocks_for(length) for length in cache.lengths.values())
        assert len(cache.pool.free) == 40 - used
    assert isinstance(cache.pool, BlockPool)


def test_memory_is_free_as_soon_as_nobody_has_the_cache():
    model, tokens = tiny(), [5, 6, 7]
    for make in (lambda: PagedCache.for_model(model, 8, 4), lambda: KVCache.for_model(model, 8)):
        cache = make()
        Forward(model)([Feed(0, tokens)], cache)
        held = weakref.ref(cache.layers[0].keys)
        assert held() is not None
        gc.disable()
        try:
            del cache
            assert held() is None
        finally:
            gc.enable()
