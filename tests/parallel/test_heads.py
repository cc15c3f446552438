"""Heads are shared out whole, each once, and every rank has the keys and values that its heads read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import CourseError
from helpers.parallel.heads import shard_heads, split_evenly


@given(st.integers(0, 200), st.integers(1, 20))
def test_pieces_are_in_order_and_differ_by_one_at_most(count, parts):
    pieces = split_evenly(count, parts)
    assert [one for piece in pieces for one in piece] == list(range(count)) and len(pieces) == parts
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_every_head_finds_its_own_keys(kv_heads, group, data):
    heads = kv_heads * group
    ranks = data.draw(st.integers(1, heads))
    shards = shard_heads(heads, kv_heads, ranks)
    assert [head for shard in shards for head in shard.heads] == list(range(heads))
    for shard in shards:
        read = [shard.kv_heads[place] for place in shard.kv_of_head]
        assert read == [head // group for head in shard.heads]
        assert set(read) == set(shard.kv_heads)  # and none in vain


def test_the_course_s_model_has_nine_heads_and_three_key_value_heads():
    three = shard_heads(9, 3, 3)
    assert all(shard.even and len(shard.kv_heads) == 1 for shard in three)
    two = shard_heads(9, 3, 2)
    assert [list(shard.kv_heads) for shard in two] == [[0, 1], [1, 2]]  # both keep the middle one
    assert [shard.kv_of_head for shard in two] == [[0, 0, 0, 1, 1], [0, 1, 1, 1]]
    assert not any(shard.even for shard in two)
    assert [len(shard.kv_heads) for shard in shard_heads(9, 3, 4)] == [1, 1, 2, 1]


def test_more_ranks_than_heads_are_refused():
    with pytest.raises(CourseError, match="9 heads can't be shared out among 10 ranks"):
        shard_heads(9, 3, 10)
