"""The loop gives what `model.generate` gives, token by token; guesses never change it; streams lose nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding import generate as module
from helpers.decoding import masks, reading
from helpers.decoding.acceptance import longest_path
from helpers.decoding.completion import Completion
from helpers.decoding.generate import generate, plain_greedy, steps, stream
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.proposals import Proposal
from helpers.decoding.proposer import TokenProposer
from helpers.decoding.sampling import Sampling
from helpers.decoding.support import support_of
from helpers.errors import CourseError
from helpers.kernels import grouped_attention
from tests.tiny_models import KINDS, VOCABULARY, greedy, tiny


class Letters:
    """A tokenizer for tests: token n is chr(64 + n)."""

    def __call__(self, text, add_special_tokens=False):
        return type("Encoding", (), {"input_ids": [ord(c) - 64 for c in text]})()

    def decode(self, ids, skip_special_tokens=True):
        return "".join(chr(64 + i) for i in ids)


class Guesser(TokenProposer):
    """Guesses a tree around the truth: a wrong branch and the right one."""

    def __init__(self, truth, start, wrong_first=True):
        self.truth, self.start, self.wrong_first = truth, start, wrong_first

    def guess(self, tokens):
        at = len(tokens) - self.start
        right = self.truth[at : at + 3]
        wrong = [(t + 1) % VOCABULARY for t in right]
        n = len(right)
        parents = [*range(-1, n - 1), -1, *range(n, 2 * n - 1)][: 2 * n]
        return Proposal(wrong + right if self.wrong_first else right + wrong, parents, ["test"] * 2 * n)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_generate(kind):
    model, prompt = tiny(kind), [5, 9, 2, 44]
    truth = greedy(model, prompt, 40)
    assert len(set(truth)) > 5
    assert [t for step in steps(model, prompt, max_new_tokens=40) for t in step.emitted] == truth


def test_the_plain_loop_equals_generate_and_stops_at_eos(model, monkeypatch):
    prompt = [5, 9, 2, 44]
    truth = greedy(model, prompt, 30)
    assert plain_greedy(model, prompt, 30) == truth
    end = max(set(truth), key=truth.index)
    monkeypatch.setattr(module, "eos_tokens", lambda model: [end])
    assert plain_greedy(model, prompt, 30) == truth[: truth.index(end) + 1]


@pytest.mark.parametrize("kind", KINDS)
def test_guesses_change_the_steps_but_not_the_tokens(kind):
    model, prompt = tiny(kind), [7, 8, 9]
    truth = greedy(model, prompt, 40)
    done = list(steps(model, prompt, max_new_tokens=40, proposer=Guesser(truth + [0] * 4, len(prompt))))
    assert [t for step in done for t in step.emitted] == truth
    assert len(done) < 15
    assert all(len(step.accepted) == len(step.emitted) - 1 for step in done[1:-1])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_guess_leaves_the_tokens_as_they_are(model, data):
    prompt = data.draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6))
    truth = greedy(model, prompt, 12)

    class Anything(TokenProposer):
        def guess(self, tokens):
            n = data.draw(st.integers(0, 5))
            guess = st.sampled_from(truth) | st.integers(0, VOCABULARY - 1)
            return Proposal([data.draw(guess) for _ in range(n)], [data.draw(st.integers(-1, i - 1)) for i in range(n)])

    made = [t for step in steps(model, prompt, max_new_tokens=12, proposer=Anything()) for t in step.emitted]
    assert made == truth


def test_a_mask_that_lets_branches_see_each_other_is_caught(model, monkeypatch):
    prompt = [7, 8, 9]
    truth = greedy(model, prompt, 30)

    def chain(feeds, starts, window, dtype, device):  # the mistake: plain causal order instead of ancestors
        n, before = len(feeds[0]), starts[0]
        return masks.additive(torch.ones(n, before + n, dtype=torch.bool).tril(before), dtype)[None, None]

    support_of(model)
    monkeypatch.setattr(reading, "step_bias", chain)
    done = list(steps(model, prompt, max_new_tokens=30, proposer=Guesser(truth + [0] * 4, len(prompt))))
    assert len(done) > 12 or [t for s in done for t in s.emitted] != truth


def test_a_window_that_guesses_ignore_is_caught(monkeypatch):
    model, prompt = tiny("mistral"), [7, 8, 9]
    truth = greedy(model, prompt, 40)
    support_of(model)
    real = masks.step_mask
    monkeypatch.setattr(masks, "step_mask", lambda feeds, starts, window=None: real(feeds, starts))
    done = list(steps(model, prompt, max_new_tokens=40, proposer=Guesser(truth + [0] * 4, len(prompt))))
    assert [t for s in done for t in s.emitted] != truth


@pytest.mark.parametrize("name", ["eager", "sdpa", grouped_attention.NAME])
def test_the_mask_means_the_same_to_every_attention(model, name):
    prompt = [7, 8, 9]
    truth = greedy(model, prompt, 20)
    model.set_attn_implementation(name)
    try:
        done = list(steps(model, prompt, max_new_tokens=20, proposer=Guesser(truth + [0] * 4, len(prompt))))
    finally:
        model.set_attn_implementation("sdpa")
    assert [t for s in done for t in s.emitted] == truth and len(done) < 10


def test_a_proposer_sees_the_hidden_state_of_the_last_certain_token_but_one(model):
    """The state from which the last certain token was chosen: what Medusa's heads were trained on."""
    prompt, seen = [5, 9, 2, 44], []

    class Watch(Guesser):
        def propose(self, sequences, hidden):
            seen.append((list(sequences[0].known), hidden[0]))
            return super().propose(sequences, hidden)

    truth = greedy(model, prompt, 12)
    for wrong_first in (True, False):  # the right branch is the last one, and the first
        list(steps(model, prompt, max_new_tokens=12, proposer=Watch(truth + [0] * 4, len(prompt), wrong_first)))
    assert len(seen) > 2
    for tokens, hidden in seen:
        with torch.no_grad():
            wanted = model.model(torch.tensor([tokens[:-1]])).last_hidden_state[0, -1]
        torch.testing.assert_close(hidden, wanted)


def test_guesses_may_run_past_the_end_of_the_answer(model):
    prompt = [5, 9, 2, 44]
    truth = greedy(model, prompt, 20)
    end = max(set(truth), key=truth.index)
    proposer = Guesser(truth + [0] * 4, len(prompt))
    done = generate(model, Letters(), prompt, max_new_tokens=20, eos=[end], proposer=proposer)
    assert done.token_ids == truth[: truth.index(end) + 1] and done.finish_reason == "eos"
    limited = generate(model, Letters(), prompt, max_new_tokens=6, eos=[], proposer=proposer)
    assert limited.token_ids == truth[:6] and sum(len(s.emitted) for s in limited.steps) == 6


def test_a_stop_string_within_a_step_cuts_what_the_step_is_credited_with(model):
    prompt = [5, 9, 2, 44]
    truth = greedy(model, prompt, 20)
    text = Letters().decode(truth)
    proposer = Guesser(truth + [0] * 4, len(prompt))
    for at in range(3, 12):
        stop = text[at : at + 2]
        done = generate(model, Letters(), prompt, max_new_tokens=20, stop=[stop], proposer=proposer)
        assert done.text == text[: text.index(stop)] and done.finish_reason == "stop"
        assert [t for s in done.steps for t in s.emitted] == done.token_ids == truth[: len(done.token_ids)]
        assert len(done.log_probs) == len(done.token_ids)


def test_a_proposer_that_guesses_too_much_is_refused(model):
    class Flood(TokenProposer):
        def guess(self, tokens):
            return Proposal([1] * 200, [-1] * 200, ["test"] * 200)

    with pytest.raises(CourseError, match="128 are the most"):
        list(steps(model, [1, 2], max_new_tokens=5, proposer=Flood()))


@pytest.mark.parametrize("stop", ["```", [""]])
def test_stop_strings_come_in_a_list_and_are_not_empty(model, stop):
    with pytest.raises(CourseError, match="as a list"):
        generate(model, Letters(), [1, 2], stop=stop)


def test_a_cache_that_keeps_the_wrong_branch_is_caught(model, monkeypatch):
    prompt = [7, 8, 9]
    truth = greedy(model, prompt, 30)
    real = KVCache.keep

    def first_ones(self, sequence, start, offsets):
        real(self, sequence, start, list(range(len(offsets))))

    monkeypatch.setattr(KVCache, "keep", first_ones)
    done = list(steps(model, prompt, max_new_tokens=30, proposer=Guesser(truth + [0] * 4, len(prompt))))
    assert [t for s in done for t in s.emitted] != truth


def test_the_longest_path_follows_the_model():
    logits = torch.zeros(4, 10)
    logits[0, 5] = logits[2, 6] = 1.0  # its own token is 5; after guess 1 (which is 5) it is 6
    proposal = Proposal([4, 5, 6], [-1, -1, 0])
    assert longest_path(proposal, lambda row: int(logits[row].argmax())) == ([1], 6)


def test_it_ends_with_eos_or_at_the_limit(model):
    prompt = [5, 9, 2, 44]
    truth = greedy(model, prompt, 20)
    end = max(set(truth), key=truth.index)  # the last token to appear for the first time
    at = truth.index(end)
    done = generate(model, Letters(), prompt, max_new_tokens=20, eos=[end])
    assert done.token_ids == truth[: at + 1] and done.finish_reason == "eos"
    limited = generate(model, Letters(), prompt, max_new_tokens=at, eos=[end])
    assert limited.token_ids == truth[:at] and limited.finish_reason == "length"
    assert limited.prompt_tokens == 4 and limited.steps[0].kind == "prefill"
    assert [s.kv_length for s in limited.steps] == [0, *range(4, 3 + at)]


def test_log_probabilities_are_the_model_s(model):
    prompt = [5, 9, 2, 44]
    done = generate(model, Letters(), prompt, max_new_tokens=6)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + done.token_ids])).logits[0].log_softmax(-1)
    wanted = [logits[len(prompt) - 1 + i, t].item() for i, t in enumerate(done.token_ids)]
    assert done.log_probs == pytest.approx(wanted, abs=1e-5)


def test_the_stream_is_the_text_and_stops_before_a_stop_string(model):
    prompt = [5, 9, 2, 44]
    whole = generate(model, Letters(), prompt, max_new_tokens=20)
    pieces = list(stream(model, Letters(), prompt, max_new_tokens=20))
    assert "".join(pieces) == whole.text and len(pieces) == 20
    stop = whole.text[8:11]
    done = Completion(0)
    shown = list(stream(model, Letters(), prompt, max_new_tokens=20, stop=[stop], completion=done))
    assert "".join(shown) == done.text == whole.text[: whole.text.index(stop)]
    assert done.finish_reason == "stop"


def test_a_stop_string_that_never_completes_is_shown_in_the_end(model):
    prompt = [5, 9, 2, 44]
    whole = generate(model, Letters(), prompt, max_new_tokens=8).text
    pieces = list(stream(model, Letters(), prompt, max_new_tokens=8, stop=[whole[-2:] + "never"]))
    assert "".join(pieces) == whole


def test_sampling_depends_on_the_seed_alone(model):
    def run(seed):
        sampling = Sampling(temperature=1.0, top_k=50, top_p=0.95, seed=seed)
        return generate(model, Letters(), [3, 4], max_new_tokens=15, sampling=sampling).token_ids

    assert run(1) == run(1) != run(2)


@pytest.mark.parametrize("options, says", [(dict(max_new_tokens=0), "at least 1"), (dict(), "prompt is empty")])
def test_bad_input_is_refused(model, options, says):
    with pytest.raises(CourseError, match=says):
        list(steps(model, [1] if options else [], **options))


@pytest.mark.parametrize("parents", [(), (1, -1), (-2, 0), (-1, 1)])
def test_a_proposal_that_is_no_tree_is_refused(parents):
    with pytest.raises(CourseError, match="a parent for each token"):
        Proposal([3, 4], parents)
