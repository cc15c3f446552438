"""A draft, however bad, changes no greedy token; a good one saves steps; sampled, it keeps the distribution."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.decoding.completion import Completion, Step
from helpers.decoding.generate import generate, steps
from helpers.decoding.proposals import NOTHING, chain
from helpers.decoding.proposer import TokenProposer
from helpers.decoding.sampling import Sampling
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.models.fewer_tokens import with_tokens
from helpers.profiling import breakdown
from helpers.profiling.breakdown import Clocked
from helpers.speculation.cost import (
    acceptance_of,
    accepted_per_step,
    best_k,
    break_even_acceptance,
    expected_tokens,
    interpolated,
    predicted_speedup,
    replayed_seconds,
)
from helpers.speculation.draft_model import DraftModel, agreed, plain_speculative
from tests.tiny_models import KINDS, VOCABULARY, greedy, tiny

PROMPT = [5, 9, 2, 44]


def emitted(done):
    return [token for step in done for token in step.emitted]


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_draft_changes_nothing(kind):
    target, draft = tiny(kind), tiny(kind, seed=1)
    truth = greedy(target, PROMPT, 30)
    assert emitted(steps(target, PROMPT, max_new_tokens=30, proposer=DraftModel(draft, target))) == truth


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12), st.integers(1, 6), st.integers(0, 3))
def test_any_draft_and_any_prompt_leave_the_tokens_as_they_are(model, prompt, count, seed):
    proposer = DraftModel(tiny(seed=seed), model, count=count)
    for ids in (prompt, prompt[::-1]):  # the same drafter, one answer after the other
        assert emitted(steps(model, ids, max_new_tokens=16, proposer=proposer)) == greedy(model, ids, 16)


def test_the_target_as_its_own_draft_is_always_right(model):
    done = list(steps(model, PROMPT, max_new_tokens=21, proposer=DraftModel(model, count=4)))
    assert [len(step.emitted) for step in done] == [1, 5, 5, 5, 5]
    assert Completion(0, steps=done).tokens_per_step == 5
    assert all(set(step.proposal.proposers) == {"draft"} for step in done[1:])


def test_a_draft_whose_cache_keeps_rejected_guesses_is_caught(model, monkeypatch):
    monkeypatch.setattr("helpers.decoding.kv_cache.KVCache.crop", lambda self, length, sequence=0: None)
    with pytest.raises(CourseError):  # its cache fills up with what came to nothing
        list(steps(model, PROMPT, max_new_tokens=200, proposer=DraftModel(tiny(seed=1), model)))


def test_log_probabilities_are_those_of_plain_decoding(model):
    plain = list(steps(model, PROMPT, max_new_tokens=24))
    fast = list(steps(model, PROMPT, max_new_tokens=24, proposer=DraftModel(model, count=3)))
    a, b = (torch.tensor([p for step in done for p in step.log_probs]) for done in (plain, fast))
    torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 48])
def test_eos_inside_an_accepted_run_ends_the_answer(model, length):
    truth = greedy(model, PROMPT, 48)
    end = truth[min(length, len(truth)) - 1]
    done = list(steps(model, PROMPT, max_new_tokens=48, eos=[end], proposer=DraftModel(model, count=5)))
    assert emitted(done) == truth[: truth.index(end) + 1]


def test_a_hesitating_draft_stops_early(model):
    sure = DraftModel(model, count=8, min_probability=0.0).guess(Sequence(PROMPT))
    unsure = DraftModel(model, count=8, min_probability=1.1).guess(Sequence(PROMPT))
    assert len(sure.tokens) == 8 and unsure.tokens == sure.tokens[:1]


def test_another_vocabulary_is_refused(model):
    other = LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )
    with pytest.raises(CourseError, match="50 tokens and the target 97: both must have the same tokenizer"):
        DraftModel(other, model)
    with pytest.raises(CourseError, match="count >= 1"):
        DraftModel(model, count=0)


def test_sampled_with_its_own_draft_every_guess_is_kept_and_the_seed_decides(model):
    sampling = Sampling(temperature=0.8, top_k=20, seed=3)

    def run(draft_seed):
        proposer = DraftModel(model, count=4, sampling=Sampling(0.8, 20, seed=draft_seed))
        return list(steps(model, PROMPT, max_new_tokens=21, sampling=sampling, proposer=proposer))

    done = run(1)
    assert [len(step.emitted) for step in done] == [1, 5, 5, 5, 5]
    assert emitted(done) == emitted(run(1)) != emitted(run(2))


@settings(max_examples=50)
@given(st.floats(0, 1), st.integers(0, 10))
def test_expected_tokens_is_the_paper_s_formula(acceptance, k):
    if acceptance < 1:
        wanted = (1 - acceptance ** (k + 1)) / (1 - acceptance)
        assert expected_tokens(acceptance, k) == pytest.approx(wanted)
    assert 1 <= expected_tokens(acceptance, k) <= k + 1


def test_the_cost_model_knows_when_speculation_loses():
    def flat(num_tokens):
        return 1.0

    def linear(num_tokens):
        return float(num_tokens)

    assert predicted_speedup(0.8, 0, linear, 0.5) == 1
    assert best_k(0.8, linear, 0.0) == 0 and best_k(0.8, flat, 0.0) == 16
    assert best_k(0.8, flat, 0.2) < 16 and best_k(0.0, flat, 0.2) == 0
    even = break_even_acceptance(4, flat, 0.1)
    assert predicted_speedup(even, 4, flat, 0.1) == pytest.approx(1)
    assert break_even_acceptance(4, linear, 0.5) == float("inf")
    with pytest.raises(CourseError, match="between 0 and 1"):
        expected_tokens(1.5, 3)


def recorded(num_tokens, accepted, guesses):
    """An answer whose decode steps read so many tokens; the prefill's own proposal is the first step's."""
    prefill = Step("prefill", 0.0, 50, 0, NOTHING, (), (1,), (0.0,))
    decode = [
        Step("decode", 0.0, n, 50, chain([7] * g, "draft"), tuple(range(a)), (1,) * (a + 1), (0.0,) * (a + 1))
        for n, a, g in zip(num_tokens, accepted, guesses)
    ]
    return Completion(50, steps=[prefill, *decode])


def test_acceptance_counts_the_guesses_that_were_tried():
    done = [recorded([4, 4, 1], [3, 1, 0], [3, 3, 0])]  # all of three; one, then a wrong one; nothing to try
    assert acceptance_of(done) == pytest.approx(4 / 5)
    assert accepted_per_step(done) == pytest.approx((4 + 2 + 1) / 3)
    assert acceptance_of([recorded([1], [0], [0])]) == 0.0
    ended = recorded([6], [2], [5])  # the second accepted guess was the end of the answer
    ended.steps[1] = replace(ended.steps[1], emitted=(1, 1))
    assert acceptance_of([ended]) == 1.0


def test_a_replay_adds_up_prefills_tokens_and_guesses():
    done = [recorded([4, 3, 1], [3, 1, 0], [3, 2, 0]), recorded([2], [1], [1])]
    assert replayed_seconds(done, float, prefill_seconds=100.0, guess_seconds=7.0) == 2 * 100 + 4 + 3 + 1 + 2 + 7
    assert replayed_seconds(done, float) == 10  # a prefill is no decode step: its 50 tokens have a price of their own


def test_a_clocked_proposer_guesses_the_same_and_tells_prompt_from_guesses(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(breakdown.time, "perf_counter", lambda: float(next(clock)))

    class Slow(TokenProposer):
        def guess(self, tokens):
            passes = (10 if tokens[-1] == 0 else 0) + 2  # a new prompt ends with 0 and takes 10 seconds
            for _ in range(passes):
                next(clock)
            return chain([1, 1], "slow")

    clocked = Clocked(Slow())
    for sequence in (Sequence([5, 0]), Sequence([6, 0])):
        for further in ([], [1, 1, 2], [1, 1, 2, 1])[: 3 if sequence.known == [5, 0] else 2]:
            [proposal] = clocked.propose([sequence.ahead(further)], torch.zeros(1, 1))
            assert proposal.tokens == [1, 1]
    assert clocked.guess_seconds == pytest.approx(3 / 2)  # two guesses in three ticks
    assert clocked.first_seconds == pytest.approx(10)


def test_between_measured_numbers_of_tokens_the_cost_is_a_straight_line():
    cost = interpolated({1: 1.0, 4: 2.5, 8: 3.0})
    assert [cost(n) for n in (1, 2, 4, 6, 8, 20)] == pytest.approx([1, 1.5, 2.5, 2.75, 3, 3])


@pytest.mark.parametrize("stop_at", [3, 6, 11])
def test_a_stop_string_across_a_step_ends_the_answer_where_plain_decoding_ends_it(model, stop_at):
    class Letters:
        def decode(self, tokens, skip_special_tokens=False):
            return "".join(chr(0x100 + t) for t in tokens)

    truth = generate(model, Letters(), PROMPT, max_new_tokens=24)
    stop = [truth.text[stop_at : stop_at + 3]]  # begins in one step and ends in another
    plain = generate(model, Letters(), PROMPT, max_new_tokens=24, stop=stop)
    fast = generate(model, Letters(), PROMPT, max_new_tokens=24, stop=stop, proposer=DraftModel(model, count=4))
    assert plain.finish_reason == fast.finish_reason == "stop"
    assert (plain.text, plain.token_ids) == (fast.text, fast.token_ids)


def test_one_token_and_as_many_as_the_model_was_made_for():
    target = tiny()
    longest = [(7 * i) % VOCABULARY for i in range(target.config.max_position_embeddings - 20)]
    for prompt in ([5], longest):
        fast = emitted(steps(target, prompt, max_new_tokens=12, proposer=DraftModel(tiny(seed=1), target, count=3)))
        assert fast == greedy(target, prompt, 12)
    with pytest.raises(CourseError, match="prompt is empty"):
        next(steps(target, [], proposer=DraftModel(target)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])  # the model itself as its guesser, which is always right, and another
def test_the_plain_loop_says_what_greedy_decoding_says(kind, seed):
    target, guesser = tiny(kind), DraftModel(tiny(kind, seed=seed), count=3)
    for count in (1, 7, 24):
        sequence = Sequence(PROMPT)

        def guess(known, sequence=sequence):
            return list(guesser.guess(sequence.ahead(known[len(PROMPT) :])).tokens)

        assert plain_speculative(target, PROMPT, guess, count) == greedy(target, PROMPT, count)
    assert plain_speculative(target, PROMPT, lambda known: [], 9) == greedy(target, PROMPT, 9)


def test_agreed_counts_up_to_the_first_difference():
    assert [agreed(g, [1, 2, 3, 4]) for g in ([], [1, 2, 3], [1, 9, 3], [9, 2, 3])] == [0, 3, 1, 0]


def test_two_requests_at_once_keep_a_draft_each(model):
    """Interleaved, each draft goes on where its own sequence was; released ones leave nothing behind."""
    prompts = ([5, 9, 2, 44], [3, 3, 7])
    proposer = DraftModel(model, count=4)
    running = [steps(model, prompt, max_new_tokens=21, proposer=proposer) for prompt in prompts]
    done = [[step for step in turn if step] for turn in zip(*itertools.zip_longest(*running))]
    for prompt, of_prompt in zip(prompts, done):
        assert emitted(of_prompt) == greedy(model, prompt, 21)
        assert [len(step.emitted) for step in of_prompt] == [1, 5, 5, 5, 5]
    assert not proposer.drafts


def test_a_draft_of_fewer_tokens_guesses_these_and_changes_no_answer():
    target, draft = tiny(), tiny(seed=1)
    truth = greedy(target, PROMPT, 24)
    few = torch.tensor(sorted(set(truth[::2])))
    small = with_tokens(target, few)  # it agrees with the target wherever it can
    done = list(steps(target, PROMPT, max_new_tokens=24, proposer=DraftModel(small, target)))
    assert emitted(done) == truth
    guesses = DraftModel(with_tokens(draft, few), target).guess(Sequence(PROMPT)).tokens
    assert set(guesses) <= set(few.tolist())


def test_a_sampled_draft_of_fewer_tokens_says_over_all_tokens_what_it_drew_from():
    sampling, few = Sampling(0.9, seed=3), torch.tensor([2, 5, 9, 30])
    draft = tiny(seed=1)
    proposal = DraftModel(with_tokens(draft, few), draft, count=2, sampling=sampling).guess(Sequence(PROMPT))
    assert proposal.probs.shape == (2, draft.config.vocab_size)
    torch.testing.assert_close(proposal.probs.sum(-1), torch.ones(2, dtype=proposal.probs.dtype))
    others = torch.ones(draft.config.vocab_size, dtype=torch.bool)
    others[few] = False
    assert not proposal.probs[:, others].any()
    assert all(proposal.probs[place, token] > 0 for place, token in enumerate(proposal.tokens))
