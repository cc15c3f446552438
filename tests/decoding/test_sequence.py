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
from helpers.errors import CourseError
from helpers.speculation.combine import Together
from helpers.speculation.draft_model import DraftModel
from helpers.speculation.medusa import Medusa
from helpers.speculation.ngram import PromptLookup
from tests.speculation.test_medusa import TREE, heads_for
from tests.tiny_models import VOCABULARY, greedy, tiny


def test_a_feed_is_what_is_known_and_not_cached_and_the_guesses():
    sequence = Sequence([1, 2, 3], max_new_tokens=8)
    assert sequence.feed() == Feed(sequence.id, [1, 2, 3], start=0) and sequence.prefilling
    assert sequence.feed(budget=2) == Feed(sequence.id, [1, 2], num_logits=0, start=0)
    logits, hidden = torch.eye(10), torch.zeros(10, 4)
    assert sequence.take(sequence.feed(budget=2), logits[:0], hidden[:0]).emitted == () and sequence.cached == 2
    assert sequence.feed() == Feed(sequence.id, [3], start=2) and sequence.prefilling  # one token, and still a prefill
    assert sequence.take(sequence.feed(), logits[[7]], hidden[:1]).emitted == (7,)
    sequence.propose(chain([5, 6], "test"))
    assert not sequence.prefilling and list(sequence.feed().tokens) == [7, 5, 6]
    verified = sequence.take(sequence.feed(), logits[[5, 9, 0]], hidden[:3])  # agrees with 5, then says 9
    assert (verified.accepted, verified.emitted) == ((0,), (5, 9))
    assert (sequence.written, sequence.cached) == ([7, 5, 9], 5) and list(sequence.feed().tokens) == [9]
    sequence.preempt()
    assert (
        list(sequence.feed().tokens) == [1, 2, 3, 7, 5, 9] and sequence.prefilling and sequence.feed().num_wanted == 1
    )


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
            proposer = chosen[sequence.id]
            verified = sequence.take(feed, *reading)
            if verified.emitted:
                cache.keep(sequence.id, sequence.cached - len(verified.accepted), verified.accepted)
                if proposer and not sequence.finish_reason:
                    sequence.propose(*proposer.propose([sequence], sequence.hidden[None]))
            assert cache.lengths[sequence.id] == sequence.cached
    assert [sequence.written for sequence in sequences] == [greedy(model, prompt, 8) for prompt in prompts]


def test_a_sequence_that_the_cache_has_lost_is_refused():
    sequence, forward = Sequence([5, 9, 2, 44], max_new_tokens=8), Forward(tiny())
    cache = KVCache.for_model(forward.model, 64)
    feed = sequence.feed()
    sequence.take(feed, *forward([feed], cache)[0])
    cache.free(sequence.id)
    with pytest.raises(CourseError, match="goes on after 4 tokens, and the cache holds 0"):
        forward([sequence.feed()], cache)
    sequence.preempt()
    assert forward([sequence.feed()], cache)


def test_an_interrupted_step_leaves_the_cache_as_it_was():
    model = tiny()
    forward, cache = Forward(model), KVCache.for_model(model, 64, 3)
    with torch.inference_mode():
        forward([Feed("a", [1, 2, 3])], cache)

        def interrupted(module, args):
            raise KeyboardInterrupt

        hook = model.model.layers[1].register_forward_pre_hook(interrupted)
        with pytest.raises(KeyboardInterrupt):
            forward([Feed("b", [4, 5]), Feed("a", [6]), Feed("c", [7])], cache)
        hook.remove()
        assert cache.lengths == {"a": 3}
        [reading] = forward([Feed("a", [6])], cache)
        torch.testing.assert_close(reading.logits[-1], model(torch.tensor([[1, 2, 3, 6]])).logits[0, -1])


def test_feeds_that_make_no_sense_are_refused():
    forward, cache = Forward(tiny()), KVCache.for_model(tiny(), 16, 2)
    for make, match in (
        (lambda: [Feed(0, [])], "certain token"),
        (lambda: [Feed(0, [5, 6], [-1, -1])], "certain token"),
        (lambda: [Feed(0, [5, 6, 7], [-2, 0])], "an earlier guess"),
        (lambda: [Feed(0, [5], num_logits=2)], "has no 2 logits"),
        (list, "one at least"),
        (lambda: [Feed(0, [1, 2]), Feed(0, [3])], "one feed of each"),
    ):
        with pytest.raises(CourseError, match=match):
            forward(make(), cache)
    assert cache.lengths == {}
    with torch.inference_mode():
        forward([Feed(0, [1, 2, 3]), Feed(1, [4])], cache)
        with pytest.raises(CourseError, match="one by one: run the model by forward"):
            forward.model(torch.tensor([[9], [9]]), past_key_values=cache)


def test_a_budget_bounds_guesses_too():
    sequence = Sequence([1, 2], max_new_tokens=8)
    logits = torch.eye(10)
    sequence.take(sequence.feed(), logits[[7]], logits[:1])
    sequence.propose(chain([5, 6], "test"))
    assert len(sequence.feed(budget=3)) == 3 and list(sequence.feed(budget=2).tokens) == [7]
    assert sequence.take(sequence.feed(), logits[[5]], logits[:1]).accepted == ()


def test_a_sequence_ahead_leaves_the_sequence_as_it_is():
    sequence = Sequence([1, 2], max_new_tokens=5)
    further = sequence.ahead([3])
    assert (further.id, further.known, sequence.known) == (sequence.id, [1, 2, 3], [1, 2])
