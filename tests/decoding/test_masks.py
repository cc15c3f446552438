"""Which token sees which: trees, chunks, sequences of different lengths, windows."""

import torch

from helpers.decoding import masks
from helpers.decoding.feed import Feed
from helpers.decoding.masks import step_bias, step_mask
from helpers.decoding.proposals import depths


def test_a_tree_s_mask_positions_and_depths():
    assert depths([-1, 0, -1, 2]) == [1, 2, 1, 2]
    tree = Feed(0, [5, 6, 7, 8], [-1, 0, -1])
    assert step_mask([tree], [2])[0, 0].int().tolist() == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],
    ]
    assert list(tree.position_offsets) == [0, 1, 2, 1]
    bias = step_bias([tree], [2], None, torch.bfloat16, torch.device("cpu"))
    assert torch.equal(bias, masks.additive(step_mask([tree], [2]), torch.bfloat16))


def test_several_certain_tokens_come_before_a_tree():
    feed = Feed(0, [5, 6, 7, 8], [-1, -1])
    assert step_mask([feed], [1])[0, 0].int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 1],
    ]
    assert feed.num_certain == 2 and feed.num_wanted == 3 and list(feed.position_offsets) == [0, 1, 2, 2]


def test_shorter_feeds_are_filled_up_on_the_left():
    longer, shorter = Feed(0, [1, 2]), Feed(1, [3])
    assert step_mask([longer, shorter], [1, 3])[:, 0].int().tolist() == [
        [[1, 1, 0, 0], [1, 1, 1, 0]],
        [[1, 1, 1, 0], [1, 1, 1, 1]],
    ]
    first = step_mask([Feed(0, [1, 2, 3]), Feed(1, [3])], [0, 0])[1, 0]
    assert first.any(-1).all()  # what fills up sees something, or softmax would divide by zero


def test_a_window_counts_positions_and_not_places():
    assert step_mask([Feed(0, [1])], [3], window=2)[0, 0].int().tolist() == [[0, 0, 1, 1]]
    tree = Feed(0, [5, 6, 7, 8], [-1, -1, 1])  # the last one is two after the certain token, and three places
    assert step_mask([tree], [1], window=2)[0, 0].int().tolist() == [
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]
