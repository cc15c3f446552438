"""Guesses from the prompt and from a table: what follows the longest run that stood before."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.generate import steps
from helpers.decoding.proposals import NOTHING
from helpers.errors import CourseError
from helpers.speculation.ngram import BigramTable, PromptLookup, continuation
from tests.tiny_models import VOCABULARY, greedy

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=30)


@given(TOKENS, st.integers(1, 3), st.integers(1, 5))
def test_a_continuation_followed_the_same_tokens_before(tokens, n, count):
    followers = continuation(tokens, n, count)
    ends = [i for i in range(n, len(tokens)) if tokens[i - n : i] == tokens[-n:]]
    assert followers == (tokens[ends[-1] : ends[-1] + count] if ends else [])


def test_the_longest_run_counts_and_of_these_the_last():
    lookup = PromptLookup(count=2, longest=2)
    assert lookup.guess([1, 2, 7, 7, 3, 2, 8, 8, 1, 2]).tokens == [7, 7]  # 1 2 stood once, 2 alone twice
    assert lookup.guess([2, 7, 2, 8, 5, 2]).tokens == [8, 5]
    assert lookup.guess([1, 2, 3]) == NOTHING and lookup.guess([5]) == NOTHING
    proposal = lookup.guess([1, 2, 7, 7, 1, 2])
    assert list(proposal.parents) == [-1, 0] and set(proposal.proposers) == {"lookup"}


def test_a_bigram_table_says_what_came_most_often():
    table = BigramTable([[1, 2, 3], [1, 2, 4], [5, 2, 4]], count=3)
    assert table.guess([9, 1]).tokens == [2, 4] and table.guess([4]) == NOTHING


@pytest.mark.parametrize("make", [lambda: PromptLookup(0), lambda: PromptLookup(3, 1, 2), lambda: BigramTable([], 0)])
def test_counts_that_make_no_sense_are_refused(make):
    with pytest.raises(CourseError, match="count >= 1"):
        make()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=8), st.integers(1, 6))
def test_neither_changes_a_token(model, prompt, count):
    truth = greedy(model, prompt, 20)
    table = BigramTable([truth], count)
    with torch.no_grad():
        for proposer in (PromptLookup(count), table):
            done = list(steps(model, prompt, max_new_tokens=20, proposer=proposer))
            assert [t for step in done for t in step.emitted] == truth
    assert count == 1 or len(done) < 20  # a table of the truth itself has to help
