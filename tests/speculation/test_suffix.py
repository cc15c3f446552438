"""The suffix automaton finds what trying finds; its guesses change no token; warm learns from other answers alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.generate import steps
from helpers.decoding.proposals import NOTHING
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.combine import Relay, Together
from helpers.speculation.ngram import BigramTable, PromptLookup
from helpers.speculation.suffix import SuffixMatch
from helpers.speculation.suffix_automaton import END, SuffixAutomaton, longest_match
from tests.tiny_models import KINDS, VOCABULARY, greedy, tiny

PROMPT = [5, 9, 2, 44]
TEXT = st.lists(st.integers(0, 3), max_size=40)


def emitted(done):
    return [token for step in done for token in step.emitted]


def automaton(tokens):
    built = SuffixAutomaton()
    for token in tokens:
        built.add(token)
    return built


@settings(deadline=None)
@given(TEXT)
def test_the_automaton_finds_the_longest_match_as_trying_does(tokens):
    growing = SuffixAutomaton()
    for n, token in enumerate(tokens, 1):
        growing.add(token)
        assert growing.match() == longest_match(tokens[:n])
    assert len(growing.length) <= 2 * len(tokens) + 1  # linear


def longest_in(text, tokens):
    """The longest end of the tokens that stands in another text, by trying."""
    ends = range(len(tokens), 0, -1)
    return next((n for n in ends if any(text[i : i + n] == tokens[-n:] for i in range(len(text)))), 0)


@settings(deadline=None)
@given(TEXT, TEXT, TEXT)
def test_walking_another_text_keeps_the_longest_match_while_it_grows(text, more, tokens):
    """The corpus may grow while a sequence walks it: then the match is never longer than the true one, and what is
    said to stand at its place does."""
    corpus, state, length = automaton(text), 0, 0
    for n, token in enumerate(tokens, 1):
        state, length = corpus.walk(state, length, token)
        assert length == longest_in(text, tokens[:n])
    for token in more:
        corpus.add(token)
    for n, token in enumerate(tokens[::-1], 1):
        state, length = corpus.walk(state, length, token)
        place = corpus.end[state]
        whole = [*tokens, *tokens[::-1][:n]]
        assert length <= longest_in(text + more, whole)
        assert corpus.tokens[place - length : place] == (whole[-length:] if length else [])


def test_an_automaton_that_never_splits_a_state_is_caught(monkeypatch):
    monkeypatch.setattr(SuffixAutomaton, "_ending_with", lambda self, token, here: self.after[here][token])
    with pytest.raises((AssertionError, ExceptionGroup)):
        test_the_automaton_finds_the_longest_match_as_trying_does()


def test_guesses_are_what_followed_the_longest_match():
    tokens = [1, 2, 7, 7, 3, 2, 8, 8, 1, 2]
    assert SuffixMatch(count=2).guess(Sequence(tokens)).tokens == [7, 7]  # 1 2 stood before, not 2 alone
    assert SuffixMatch(count=2, shortest=3).guess(Sequence(tokens)) == NOTHING
    assert SuffixMatch().guess(Sequence([1, 2, 3])) == NOTHING
    assert set(SuffixMatch().guess(Sequence([4, 4])).proposers) == {"suffix"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warm", [False, True])
def test_no_token_changes_in_float32(kind, warm):
    model, proposer = tiny(kind).float(), SuffixMatch(warm=warm)
    for prompt in (PROMPT, PROMPT[::-1]):
        done = steps(model, prompt, max_new_tokens=24, proposer=proposer)
        assert emitted(done) == greedy(model, prompt, 24)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=10), st.integers(1, 6), st.integers(1, 3))
def test_any_prompt_leaves_the_tokens_as_they_are(model, prompt, count, shortest):
    proposer = SuffixMatch(count, shortest, warm=True)
    for ids in (prompt, prompt[1:] or [3], prompt):
        assert emitted(steps(model, ids, max_new_tokens=16, proposer=proposer)) == greedy(model, ids, 16)


def test_warm_copies_an_earlier_answer_and_cold_does_not(model):
    numbers = {}
    for warm in (False, True):
        proposer = SuffixMatch(count=6, warm=warm)
        counts = [len(list(steps(model, PROMPT, max_new_tokens=30, proposer=proposer))) for _ in range(2)]
        numbers[warm] = counts
    assert numbers[False][0] == numbers[False][1] == numbers[True][0] and numbers[True][1] < numbers[True][0] / 2


def test_a_match_does_not_run_from_one_answer_into_the_next():
    proposer = SuffixMatch(count=5, warm=True)
    for answer in ([1, 2, 3], [4, 5]):
        sequence = Sequence([9])
        sequence.known += answer
        proposer.release(sequence)
    assert proposer.earlier.tokens == [1, 2, 3, END, 4, 5, END]
    [guess] = proposer.propose([Sequence([8, 1, 2])])
    assert guess.tokens == [3] and guess.proposers == ["earlier answer"]
    assert proposer.propose([Sequence([8, 2, 3])]) == [NOTHING]  # the answer ended there


def test_a_match_of_its_own_text_counts_before_an_equal_one_of_an_earlier_answer():
    proposer = SuffixMatch(count=1, warm=True)
    sequence = Sequence([9])
    sequence.known += [1, 2, 3]
    proposer.release(sequence)
    [equal, longer] = proposer.propose([Sequence([2, 7, 2]), Sequence([2, 7, 1, 2])])
    assert equal.tokens == [7] and longer.tokens == [3]


def test_several_sequences_keep_apart_and_release_forgets_one():
    proposer = SuffixMatch(count=2)
    one, other = Sequence([1, 2, 1]), Sequence([3, 4, 3])
    assert [p.tokens for p in proposer.propose([one, other])] == [[2, 1], [4, 3]]
    one.known += [2]
    assert [p.tokens for p in proposer.propose([one, other])] == [[1, 2], [4, 3]]
    proposer.release(one)
    assert set(proposer.own) == {other.id} and not proposer.earlier.tokens


def test_a_sequence_asked_ahead_is_read_anew_afterwards():
    proposer, sequence = SuffixMatch(count=2), Sequence([1, 2, 1])
    assert proposer.propose([sequence.ahead([2])])[0].tokens == [1, 2]
    sequence.known += [5, 1]
    assert proposer.propose([sequence])[0].tokens == [2, 1]


def test_it_goes_into_one_tree_and_into_a_relay_with_others(model):
    truth = greedy(model, PROMPT, 24)
    for way in (Together, Relay):
        proposer = way(SuffixMatch(), PromptLookup(), BigramTable([truth]))
        assert emitted(steps(model, PROMPT, max_new_tokens=24, proposer=proposer)) == truth


@pytest.mark.parametrize("options", [dict(count=0), dict(shortest=0)])
def test_counts_that_make_no_sense_are_refused(options):
    with pytest.raises(CourseError, match="count >= 1"):
        SuffixMatch(**options)
