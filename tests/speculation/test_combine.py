"""Several proposers in one tree: every path is there, each node once, and the first to guess it is named."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.decoding.proposals import NOTHING, Proposal, chain
from helpers.decoding.proposer import TokenProposer
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.combine import FirstOf, Relay, Together, chain_from, merged
from helpers.speculation.ngram import PromptLookup


class Fixed(TokenProposer):
    def __init__(self, proposal):
        self.proposal, self.asked = proposal, 0

    def guess(self, tokens):
        self.asked += 1
        return self.proposal


def guess(proposer, tokens):
    """What a proposer makes of one sequence."""
    [proposal] = proposer.propose([Sequence(tokens)], torch.zeros(1, 4))
    return proposal


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
    both = guess(Together(Fixed(chain([1, 2], "head 1")), Fixed(chain([1, 3], "lookup"))), [0])
    assert both == Proposal([1, 2, 3], [-1, 0, 0], ["head 1", "head 1", "lookup"])


def test_the_first_with_a_guess_is_enough():
    cheap, dear = Fixed(NOTHING), Fixed(chain([4], "draft"))
    assert guess(FirstOf(cheap, dear), [0]).tokens == [4] and (cheap.asked, dear.asked) == (1, 1)
    first = Fixed(chain([5], "lookup"))
    assert guess(FirstOf(first, dear), [0]).tokens == [5] and dear.asked == 1
    assert guess(FirstOf(PromptLookup()), [1]) == NOTHING


def test_guesses_drawn_by_chance_share_no_tree():
    with pytest.raises(CourseError, match="drawn at random"):
        merged([chain([1], "draft", torch.ones(1, 4) / 4)])


class After(TokenProposer):
    """Guesses what comes after certain tokens."""

    def __init__(self, name, table):
        self.name, self.table = name, table

    def guess(self, tokens):
        return chain(self.table.get(tokens[-1], []), self.name)


def test_a_relay_hands_on_where_one_knows_no_more():
    names, phrases = After("lookup", {1: [2, 3], 5: [1]}), After("bigram", {3: [5], 1: [9]})
    found = guess(Relay(names, phrases, count=5), [1])
    assert (found.tokens, found.proposers) == ([2, 3, 5, 1, 2], ["lookup", "lookup", "bigram", "lookup", "lookup"])
    assert list(found.parents) == [-1, 0, 1, 2, 3]
    assert guess(Relay(names, phrases, count=5), [7]) == NOTHING
    with pytest.raises(CourseError, match="count >= 1"):
        Relay(names, count=0)


def test_of_a_tree_a_relay_takes_the_first_path():
    tree = Proposal([4, 6, 5, 7], [-1, -1, 0, 2], ["a"] * 4)
    assert chain_from(tree) == [0, 2, 3] and chain_from(NOTHING) == []


def test_several_sequences_get_a_proposal_each_and_all_are_released():
    released = []

    class Watching(After):
        def release(self, sequence):
            released.append((self.name, sequence))

    one, other = Watching("one", {1: [2], 3: [4]}), Watching("other", {1: [9], 5: [6]})
    sequences = [Sequence([token]) for token in (1, 3, 5, 7)]
    hidden = torch.zeros(4, 4)
    assert [p.tokens for p in FirstOf(one, other).propose(sequences, hidden)] == [[2], [4], [6], ()]
    assert [list(p.tokens) for p in Together(one, other).propose(sequences, hidden)] == [[2, 9], [4], [6], []]
    assert [list(p.tokens) for p in Relay(one, other, count=1).propose(sequences, hidden)] == [[2], [4], [6], []]
    Relay(one, other).release(sequences[0])
    assert released == [("one", sequences[0]), ("other", sequences[0])]
