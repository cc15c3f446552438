"""The tree is the one that was right most often, and its steps are counted as decoding takes them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.generate import steps
from helpers.speculation.medusa import CHAIN, Medusa
from helpers.speculation.tree_choice import (
    accepted_steps,
    best_tree,
    path_shares,
    ranks_of,
)
from tests.speculation.test_medusa import PROMPT, TREE, heads_for
from tests.tiny_models import greedy

answers = st.lists(st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=8), min_size=1, max_size=4)


@settings(deadline=None)
@given(answers, st.integers(0, 9))
def test_the_most_frequent_paths_are_a_tree(found, size):
    tree = best_tree(path_shares(found), size)
    assert all(path[:-1] in {(), *tree} for path in tree) and len(set(tree)) == len(tree)


def test_shares_are_counted_along_whole_paths():
    found = [[[0, 0], [0, 1], [1, 0], []]]
    assert path_shares(found) == {(0,): 0.5, (0, 0): 0.25, (0, 1): 0.25, (1,): 0.25, (1, 0): 0.25}
    assert path_shares([[[12, 0]]]) == {}  # nothing below a guess outside the width
    assert best_tree(path_shares(found), 2) == [(0,), (1,)]  # of two equally frequent ones the shorter


def test_ranks_are_counted_from_what_the_heads_said(model):
    heads, hidden, tokens = heads_for(model), torch.randn(4, 64, dtype=torch.float64), [3, 8, 1, 60]
    found = ranks_of(heads, hidden, tokens)
    assert [len(ranks) for ranks in found] == [3, 2, 1, 0]
    order = heads(hidden)[1, 0].argsort(descending=True).tolist()
    assert found[0][1] == order.index(tokens[2])


@pytest.mark.parametrize("tree", [CHAIN, TREE, ()])
def test_counted_steps_are_those_of_decoding(model, tree):
    truth, heads = greedy(model, PROMPT, 25), heads_for(model)
    hidden = model(torch.tensor([PROMPT + truth]), output_hidden_states=True).hidden_states[-1][0]
    ranks = ranks_of(heads, hidden[len(PROMPT) - 1 : -1], truth)
    done = list(steps(model, PROMPT, max_new_tokens=25, proposer=Medusa(heads, tree)))
    assert accepted_steps(ranks, tree) == [len(step.emitted) for step in done[1:]]


def test_a_right_chain_is_counted_to_the_end_of_the_answer():
    ranks = [[0, 0], [0, 0], [0, 0], [0], []]
    assert accepted_steps(ranks, ((0,), (0, 0))) == [3, 1]
    assert accepted_steps(ranks, ()) == [1, 1, 1, 1] and accepted_steps([[]], CHAIN) == []
