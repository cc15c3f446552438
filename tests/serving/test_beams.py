"""Beam search finds what an independent one finds, and stops no sooner than it may."""

import asyncio
import itertools
import math

import httpx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.serving.beams import Beam, beam_search
from tests.serving.conftest import served
from tests.serving.test_server import PROMPT, post


def table(seed, vocabulary):
    """A made-up model: the log-probabilities of the next token after any tokens."""

    def after(tokens):
        draw = torch.Generator().manual_seed(hash((seed, *tokens)) % 2**31)
        return torch.log_softmax(2 * torch.randn(vocabulary, generator=draw), 0).tolist()

    return after


def searched(after, vocabulary, width, longest, eos, penalty=1.0):
    calls = []

    async def next_tokens(beams):
        calls.append(len(beams))
        ranked = [sorted(enumerate(after(beam)), key=lambda pair: -pair[1]) for beam in beams]
        return [tokens[: width + len(eos)] for tokens in ranked]

    return asyncio.run(beam_search(next_tokens, width, longest, eos, penalty)), calls


def every_answer(after, vocabulary, longest, eos):
    """All answers up to this length: those that end by an end, and those that are cut off."""
    for length in range(1, longest + 1):
        for tokens in itertools.product(range(vocabulary), repeat=length):
            if any(token in eos for token in tokens[:-1]) or (length < longest and tokens[-1] not in eos):
                continue
            total = sum(after(tokens[:k])[token] for k, token in enumerate(tokens))
            yield Beam(tokens, total, tokens[-1] in eos)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), penalty=st.sampled_from([0.0, 0.5, 1.0, 2.0, -1.0]), ends=st.integers(0, 2))
def test_as_wide_as_all_answers_it_is_exhaustive(seed, penalty, ends):
    vocabulary, longest, eos = 4, 3, set(range(ends))
    after = table(seed, vocabulary)
    width = vocabulary**longest
    found, _ = searched(after, vocabulary, width, longest, eos, penalty)
    best = sorted(every_answer(after, vocabulary, longest, eos), key=lambda b: -b.score(penalty))
    assert [b.tokens for b in found[:8]] == [b.tokens for b in best[:8]]
    assert [b.log_prob for b in found[:8]] == pytest.approx([b.log_prob for b in best[:8]])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), width=st.integers(1, 4), penalty=st.sampled_from([0.0, 1.0, -0.5]))
def test_stopping_early_loses_nothing(seed, width, penalty):
    after, eos = table(seed, 6), {0, 3}
    found, _ = searched(after, 6, width, 8, eos, penalty)

    class Never(Beam):
        def most(self, longest, length_penalty):
            return math.inf

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Beam, "most", Never.most)
        patient, _ = searched(after, 6, width, 8, eos, penalty)
    assert found == patient


def test_a_single_beam_is_greedy_and_an_early_end_stops_the_search():
    after = table(3, 8)
    [found], calls = searched(after, 8, 1, 5, set())
    greedy = []
    for _ in range(5):
        greedy.append(max(range(8), key=after(tuple(greedy)).__getitem__))
    assert list(found.tokens) == greedy and calls == [1] * 5 and not found.ended

    def sure(tokens):
        return [math.log(0.97), math.log(0.02), math.log(0.01)]

    [found], calls = searched(sure, 3, 1, 50, {0})
    assert found == Beam((0,), math.log(0.97), True) and len(calls) < 5


def test_the_server_s_are_those_of_transformers(server, model, tokenizer):
    ids = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        theirs = model.generate(
            torch.tensor([ids]), num_beams=3, num_return_sequences=3, max_new_tokens=6, do_sample=False
        )
    expected = [tokenizer.decode(one[len(ids) :], skip_special_tokens=True) for one in theirs]
    body = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0, "n": 3, "use_beam_search": True}
    told = post(server, "/v1/completions", body).json()
    assert [choice["text"] for choice in told["choices"]] == expected and len(set(expected)) == 3
    assert {choice["finish_reason"] for choice in told["choices"]} == {"length"}
    assert told["usage"]["completion_tokens"] == 18
    chat = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, "n": 2, "use_beam_search": True}
    assert len(post(server, "/v1/chat/completions", chat).json()["choices"]) == 2


@pytest.mark.parametrize("more", [{"stream": True}, {"stop": "a"}, {"temperature": 0.7}, {"logprobs": 1}])
def test_what_beams_don_t_do_is_refused(server, more):
    refused = post(server, "/v1/completions", {"prompt": "a", "use_beam_search": True} | more)
    assert refused.status_code == 400 and "Beam search has no stream, stop, temperature" in refused.text


def test_an_accepted_search_goes_on_when_the_server_is_full(model, tokenizer):
    """The first token is asked for as any request is; after that nobody turns it away."""
    worker, context = served(model, tokenizer, max_open=3)
    submit, seen = worker.submit, []

    def full(wanted, admitted=False):
        seen.append(admitted)
        worker._open += 3 * (len(seen) > 1)  # others have come between two steps
        try:
            return submit(wanted, admitted)
        finally:
            worker._open -= 3 * (len(seen) > 1)

    worker.submit = full
    body = {"prompt": PROMPT, "max_tokens": 4, "n": 2, "use_beam_search": True}
    with context as url:
        assert httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code == 200
    assert seen[0] is False and all(seen[1:])


def test_a_search_that_would_be_too_long_is_refused_before_it_begins(server):
    before = server.worker.requests
    refused = post(server, "/v1/completions", {"prompt": "a", "max_tokens": 5000, "use_beam_search": True})
    assert refused.status_code == 400 and "together this server takes 4096" in refused.text
    assert server.worker.requests == before
