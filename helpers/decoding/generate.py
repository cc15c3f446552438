"""The decode loop: prefill once, then step after step, each asking a proposer for guesses and keeping what the model
agrees with. Plain greedy decoding is the loop without a proposer (notebook 00); the others come in 07 and 08.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch

from helpers.decoding.completion import Completion, Step
from helpers.decoding.forward import Forward, eos_tokens
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.proposals import MAX_GUESSES
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.decoding.streaming import Detokenizer


@torch.inference_mode()
def plain_greedy(model, tokens: list[int], max_new_tokens: int = 256) -> list[int]:
    """All there is to decoding, with nothing clever: the reference for everything
    that is (notebook 00)."""
    cache = KVCache.for_model(model, len(tokens) + max_new_tokens)
    feed, written = list(tokens), []
    while len(written) < max_new_tokens:
        ids = torch.tensor([feed], device=model.device)
        logits = model(input_ids=ids, past_key_values=cache).logits
        written.append(int(logits[0, -1].argmax()))  # after the last token read
        if written[-1] in eos_tokens(model):
            break
        feed = written[-1:]  # the cache remembers all before it
    return written


@torch.inference_mode()
def decode(model, sequence: Sequence, proposer: Proposer | None = None) -> Iterator[Step]:
    """The loop itself, for one sequence: yields each step as it is done."""
    forward = Forward(model)
    forward.check_request(sequence, guesses=proposer is not None)
    cache = KVCache.for_model(model, sequence.max_length + MAX_GUESSES)
    try:
        while not sequence.finish_reason:
            began, start = time.perf_counter(), sequence.cached
            kind, proposal, feed = "prefill" if sequence.prefilling else "decode", sequence.proposal, sequence.feed()
            [reading] = forward([feed], cache)
            verified = sequence.take(feed, *reading)
            cache.keep(sequence.id, sequence.cached - len(verified.accepted), verified.accepted)
            if proposer and not sequence.finish_reason:
                sequence.propose(*proposer.propose([sequence], sequence.hidden[None]))
            seconds = time.perf_counter() - began
            yield Step(
                kind, seconds, len(feed), start, proposal, verified.accepted, verified.emitted, verified.log_probs
            )
    finally:
        if proposer:
            proposer.release(sequence)


def steps(
    model, prompt_ids: Iterable[int], *, proposer: Proposer | None = None, eos: Iterable[int] | None = None, **options
) -> Iterator[Step]:
    """Steps of the answer to a prompt; `options` are max_new_tokens, sampling and detokenizer, as of Sequence."""
    eos = eos_tokens(model) if eos is None else eos
    return decode(model, Sequence(prompt_ids, eos=eos, **options), proposer)


def stream(
    model,
    tokenizer,
    prompt: str | Iterable[int],
    *,
    stop: Iterable[str] = (),
    completion: Completion | None = None,
    **options,
) -> Iterator[str]:
    """Yields the answer's text piece by piece, as far as it is certain; a `completion` given to it is filled on the
    way. `options` are those of `steps`; an answer ends before a `stop` string."""
    detokenizer = Detokenizer(tokenizer, stop)
    ids = tokenizer(prompt, add_special_tokens=False).input_ids if isinstance(prompt, str) else list(prompt)
    completion = completion if completion is not None else Completion(0)
    completion.prompt_tokens = len(ids)
    options["eos"] = eos_tokens(model) if options.get("eos") is None else options["eos"]
    proposer = options.pop("proposer", None)
    sequence = Sequence(ids, detokenizer=detokenizer, **options)
    for step in decode(model, sequence, proposer):
        completion.add(step)
        completion.finish_reason = sequence.finish_reason or "length"
        shown, completion.text = len(completion.text), detokenizer.text
        if len(completion.text) > shown:
            yield completion.text[shown:]
    if not detokenizer.stopped and (rest := detokenizer.finish()):
        completion.text += rest
        yield rest
    if detokenizer.stopped:  # by what was held back, too
        completion.finish_reason = "stop"


def generate(model, tokenizer, prompt: str | Iterable[int], **options) -> Completion:
    """The whole answer at once; options as of `stream` and `steps`."""
    completion = Completion(0)
    for _ in stream(model, tokenizer, prompt, completion=completion, **options):
        pass
    return completion
