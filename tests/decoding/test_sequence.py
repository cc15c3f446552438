"""A sequence feeds what the cache lacks, whatever happened to it: the ground that an engine stands on."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.proposals import Proposal, chain, no_deeper
from helpers.decoding.sequence import Sequence
from helpers.speculation.combine import Together
from helpers.speculation.draft_model import DraftModel
from helpers.speculation.medusa import Medusa
from helpers.speculation.ngram import PromptLookup
from tests.speculation.test_medusa import TREE, heads_for
from tests.tiny_models import VOCABULARY, greedy, tiny


def test_a_feed_is_what_is_known_and_not_cached_and_the_guesses():
    sequence = Sequence([1, 2, 3], max_new_tokens=8)
    assert sequence.feed() == Feed(sequence.id, [1, 2, 3]) and sequence.prefilling
    assert sequence.feed(budget=2) == Feed(sequence.id, [1, 2], num_logits=0)
    logits, hidden = torch.eye(10), torch.zeros(10, 4)
    assert sequence.take(sequence.feed(budget=2), logits[:0], hidden[:0]).emitted == () and sequence.cached == 2
    assert sequence.feed() == Feed(sequence.id, [3]) and sequence.prefilling  # one token, and still a prefill
    assert sequence.take(sequence.feed(), logits[[7]], hidden[:1]).emitted == (7,)
    sequence.propose(chain([5, 6], "test"))
    assert not sequence.prefilling and list(sequence.feed().tokens) == [7, 5, 6]
    verified = sequence.take(sequence.feed(), logits[[5, 9, 0]], hidden[:3])  # agrees with 5, then says 9
    assert (verified.accepted, verified.emitted) == ((0,), (5, 9))
    assert (sequence.written, sequence.cached) == ([7, 5, 9], 5) and list(sequence.feed().tokens) == [9]
    sequence.preempt()
    assert list(sequence.feed().tokens) == [1, 2, 3, 7, 5, 9] and sequence.prefilling and sequence.feed().wanted == 1


def test_guesses_past_the_longest_answer_are_left_out():
    sequence = Sequence([1], max_new_tokens=3)
    sequence.propose(Proposal([4, 5, 6, 7], [-1, 0, 1, 0], ["a"] * 4))
    assert list(sequence.feed().tokens) == [
        1,
        4,
        5,
        7,
    ]  # a third accepted guess would leave no room for the bonus token
    drawn = chain([4, 5, 6], "draft", torch.eye(3))
    assert torch.equal(no_deeper(drawn, 1).probs, torch.eye(3)[:1]) and no_deeper(drawn, 3) is drawn


def proposers(model):
    return [None, PromptLookup(), DraftModel(model, count=3), Together(Medusa(heads_for(model), TREE), PromptLookup())]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
@torch.inference_mode()
def test_sequences_that_share_a_cache_write_what_each_writes_alone(model, seed):
    """Random arrivals, budgets, preemptions and proposers: a scheduler that draws lots."""
    rng = random.Random(seed)
    prompts = [[rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 9))] for _ in range(rng.randint(1, 4))]
    sequences = [Sequence(prompt, max_new_tokens=8) for prompt in prompts]
    chosen = {sequence.id: rng.choice(proposers(model)) for sequence in sequences}
    forward, cache = Forward(model), KVCache.for_model(model, 160, len(prompts))
    while running := [sequence for sequence in sequences if not sequence.finish_reason]:
        now = rng.sample(running, rng.randint(1, len(running)))
        for sequence in now:
            if sequence.cached and rng.random() < 0.1:
                cache.free(sequence.id)
                sequence.preempt()
        feeds = [sequence.feed(rng.choice([1, 2, 4, None])) for sequence in now]
        for sequence, feed, reading in zip(now, feeds, forward(feeds, cache), strict=True):
            num_certain, proposer = len(sequence.known), chosen[sequence.id]
            verified = sequence.take(feed, *reading)
            if verified.emitted:
                cache.keep(sequence.id, num_certain, verified.accepted)
                if proposer and not sequence.finish_reason:
                    sequence.propose(*proposer.propose([sequence], sequence.hidden[None]))
            assert cache.lengths[sequence.id] == sequence.cached
    assert [sequence.written for sequence in sequences] == [greedy(model, prompt, 8) for prompt in prompts]


def test_a_preempted_sequence_whose_cache_is_not_read_again_is_caught():
    model, prompt = tiny(), [5, 9, 2, 44]
    sequence, forward = Sequence(prompt, max_new_tokens=8), Forward(model)
    cache = KVCache.for_model(model, 64)
    for turn in range(8):
        feed = sequence.feed()
        if turn == 3:  # the mistake: the cache has lost it, and the sequence does not know
            cache.free(sequence.id)
        known = len(sequence.known)
        [reading] = forward([feed], cache)
        verified = sequence.take(feed, *reading)
        if turn < 3:
            cache.keep(sequence.id, known, verified.accepted)
    assert sequence.written != greedy(model, prompt, 8)


@pytest.mark.parametrize("seed", range(3))
def test_a_sequence_ahead_shares_nothing_that_changes(seed):
    sequence = Sequence([1, 2], max_new_tokens=5)
    further = sequence.ahead([3])
    assert (further.id, further.known, sequence.known) == (sequence.id, [1, 2, 3], [1, 2])
