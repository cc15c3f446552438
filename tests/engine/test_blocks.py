"""A block has as many users as take it, and is found by what it holds until that changes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.sequence_cache import CacheFullError
from helpers.engine.blocks import BlockPool


def test_a_block_is_taken_once_and_refused_when_none_is_left():
    pool = BlockPool(2)
    assert {pool.take(), pool.take()} == {0, 1} and not pool.free
    with pytest.raises(CacheFullError, match="All blocks of the cache are in use"):
        pool.take()


def test_a_free_block_still_holds_what_it_held_until_it_is_taken():
    pool = BlockPool(2)
    block = pool.take()
    pool.remember(block, None, [1, 2])
    pool.give_back(block)
    assert pool.find(None, [1, 2]) == block and pool.find(None, [2, 1]) is None
    pool.share(block)
    assert pool.users[block] == 1 and block not in pool.free
    pool.give_back(block)
    assert pool.take() != block and pool.take() == block  # the longest unused first
    assert pool.find(None, [1, 2]) is None


def test_a_block_is_found_after_its_own_beginning_alone():
    pool = BlockPool(4)
    first, second, other = pool.take(), pool.take(), pool.take()
    pool.remember(first, None, [1])
    pool.remember(second, first, [2])
    pool.remember(other, None, [3])
    assert pool.find(first, [2]) == second and pool.find(other, [2]) is None and pool.find(None, [2]) is None


def test_what_came_after_a_beginning_is_not_found_after_what_takes_its_block():
    pool = BlockPool(2)
    first, second = pool.take(), pool.take()
    pool.remember(first, None, [1])
    pool.remember(second, first, [2])
    pool.give_back(first)
    again = pool.take()
    assert again == first
    pool.remember(again, None, [7])
    assert pool.find(again, [2]) is None


def test_two_that_hold_the_same_have_one_beginning():
    pool = BlockPool(3)
    one, two, after = pool.take(), pool.take(), pool.take()
    pool.remember(one, None, [1])
    pool.remember(two, None, [1])
    pool.remember(after, two, [2])
    assert pool.find(None, [1]) == one and pool.find(one, [2]) == after


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "share", "give_back"]), st.integers(0, 7)), max_size=60))
def test_a_block_is_free_exactly_if_it_has_no_user(operations):
    pool, users = BlockPool(8), [0] * 8
    for what, block in operations:
        if what == "take" and pool.free:
            users[pool.take()] += 1
        elif what == "share":
            pool.share(block)
            users[block] += 1
        elif what == "give_back" and users[block]:
            pool.give_back(block)
            users[block] -= 1
        assert pool.users == users and set(pool.free) == {b for b, n in enumerate(users) if not n}
