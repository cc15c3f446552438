"""Several proposers in one tree: every path is there, each node once, and the first to guess it is named."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.decoding.generate import steps
from helpers.decoding.proposals import NOTHING, Proposal, chain
from helpers.errors import CourseError
from helpers.speculation.combine import FirstOf, Relay, Together, chain_from, merged
from helpers.speculation.ngram import PromptLookup


class Fixed:
    def __init__(self, proposal):
        self.proposal, self.asked = proposal, 0

    def propose(self, tokens, hidden=None):
        self.asked += 1
        return self.proposal


def paths(proposal):
    found = []
    for i in range(len(proposal.tokens)):
        path, here = [], i
        while here >= 0:
            path.insert(0, proposal.tokens[here])
            here = proposal.parents[here]
        found.append(tuple(path))
    return found


@st.composite
def trees(draw):
    tokens = draw(st.lists(st.integers(0, 2), max_size=6))
    return Proposal(tokens, [draw(st.integers(-1, i - 1)) for i in range(len(tokens))], ["a"] * len(tokens))


@given(st.lists(trees(), max_size=3))
def test_all_paths_are_there_and_each_once(proposals):
    found = paths(merged(proposals))
    assert set(found) == {path for proposal in proposals for path in paths(proposal)}
    assert len(found) == len(set(found))


def test_a_node_belongs_to_the_first_who_guessed_it():
    both = Together(Fixed(chain([1, 2], "head 1")), Fixed(chain([1, 3], "lookup"))).propose([0])
    assert both == Proposal([1, 2, 3], [-1, 0, 0], ["head 1", "head 1", "lookup"])


def test_the_first_with_a_guess_is_enough():
    cheap, dear = Fixed(NOTHING), Fixed(chain([4], "draft"))
    assert FirstOf(cheap, dear).propose([0]).tokens == [4] and (cheap.asked, dear.asked) == (1, 1)
    first = Fixed(chain([5], "lookup"))
    assert FirstOf(first, dear).propose([0]).tokens == [5] and dear.asked == 1
    assert FirstOf(PromptLookup()).propose([1]) == NOTHING


def test_guesses_drawn_by_chance_share_no_tree():
    with pytest.raises(CourseError, match="drawn at random"):
        merged([chain([1], "draft", torch.ones(1, 4) / 4)])


class After:
    """Guesses what comes after certain tokens."""

    def __init__(self, name, table):
        self.name, self.table = name, table

    def propose(self, tokens, hidden=None):
        return chain(self.table.get(tokens[-1], []), self.name)


def test_a_relay_hands_on_where_one_knows_no_more():
    names, phrases = After("lookup", {1: [2, 3], 5: [1]}), After("bigram", {3: [5], 1: [9]})
    found = Relay(names, phrases, count=5).propose([1])
    assert (found.tokens, found.proposers) == ([2, 3, 5, 1, 2], ["lookup", "lookup", "bigram", "lookup", "lookup"])
    assert list(found.parents) == [-1, 0, 1, 2, 3]
    assert Relay(names, phrases, count=5).propose([7]) == NOTHING
    with pytest.raises(CourseError, match="count >= 1"):
        Relay(names, count=0)


def test_of_a_tree_a_relay_takes_the_first_path():
    tree = Proposal([4, 6, 5, 7], [-1, -1, 0, 2], ["a"] * 4)
    assert chain_from(tree) == [0, 2, 3] and chain_from(NOTHING) == []


def test_hidden_states_are_collected_only_for_who_wants_them(model):
    class Watching(PromptLookup):
        def __init__(self, wants):
            super().__init__()
            self.wants_hidden, self.seen = wants, set()

        def propose(self, tokens, hidden=None):
            self.seen.add(hidden is not None)
            return super().propose(tokens)

    for kind in (Together, FirstOf, Relay):
        for wants in (True, False):
            one = Watching(wants)
            list(steps(model, [5, 9, 2, 5], max_new_tokens=6, proposer=kind(PromptLookup(), one)))
            assert one.seen <= {wants}
    assert Together(PromptLookup(), After("who says nothing", {})).wants_hidden  # not saying so counts as yes
