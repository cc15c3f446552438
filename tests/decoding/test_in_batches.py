"""Answers written many at a time, with guesses, are those written one by one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.in_batches import answers_in_batches
from helpers.speculation.combine import Together
from helpers.speculation.draft_model import DraftModel
from helpers.speculation.ngram import PromptLookup
from helpers.speculation.recycling import TokenRecycling
from helpers.speculation.suffix import SuffixMatch
from tests.tiny_models import KINDS, VOCABULARY, greedy, tiny

PROMPTS = [[5, 9, 2, 44], [7], [5, 9, 2, 44, 8, 8, 1], [3, 4]]


@pytest.mark.parametrize("kind", KINDS)
def test_every_guesser_writes_in_a_batch_what_greedy_decoding_writes(kind):
    model = tiny(kind)
    truth = [greedy(model, prompt, 14) for prompt in PROMPTS]
    proposers = [None, PromptLookup(), DraftModel(tiny(kind, seed=1), model), TokenRecycling(), SuffixMatch(warm=True)]
    proposers.append(Together(TokenRecycling(), SuffixMatch()))
    for proposer in proposers:
        assert answers_in_batches(model, PROMPTS, proposer, max_new_tokens=14, batch_size=3) == truth


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=8), min_size=1, max_size=5),
    st.integers(1, 4),
)
def test_any_prompts_and_any_batch(model, prompts, batch_size):
    truth = [greedy(model, prompt, 9) for prompt in prompts]
    found = answers_in_batches(model, prompts, TokenRecycling(), max_new_tokens=9, batch_size=batch_size)
    assert found == truth


def test_an_end_token_ends_an_answer_and_lets_the_next_one_in(model):
    truth = [greedy(model, prompt, 20) for prompt in PROMPTS]
    end = truth[0][5]
    eos, model.generation_config.eos_token_id = model.generation_config.eos_token_id, end
    try:
        found = answers_in_batches(model, PROMPTS, SuffixMatch(), max_new_tokens=20, batch_size=2)
    finally:
        model.generation_config.eos_token_id = eos
    assert found == [t[: t.index(end) + 1] if end in t else t for t in truth]


def test_no_prompts_have_no_answers(model):
    assert answers_in_batches(model, []) == []
