"""The decode loop: prefill once, then step after step, each asking a proposer for guesses and keeping what the model
agrees with. Plain greedy decoding is the proposer that guesses nothing (notebook 00); the others come in 07 and 08.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional as F

from helpers.decoding.acceptance import kept_path
from helpers.decoding.completion import Completion, Step
from helpers.decoding.forward import Decoder, eos_tokens
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.proposals import NOTHING, Proposer
from helpers.decoding.sampling import GREEDY, Chooser, Sampling
from helpers.decoding.streaming import _uncertain
from helpers.errors import CourseError


@torch.inference_mode()
def plain_greedy(model, tokens: Sequence[int], most: int = 256) -> list[int]:
    """All there is to decoding, with nothing clever: the reference for everything that is (notebook 00)."""
    cache, written, feed = KVCache.for_model(model, len(tokens) + most), [], list(tokens)
    while len(written) < most:
        logits = model(input_ids=torch.tensor([feed], device=model.device), past_key_values=cache).logits
        written.append(int(logits[0, -1].argmax()))  # the best next token, after the last one read
        if written[-1] in eos_tokens(model):
            break
        feed = written[-1:]  # the cache remembers all before it
    return written


@torch.inference_mode()
def steps(model, prompt_ids: Sequence[int], *, max_new_tokens: int = 256, sampling: Sampling = GREEDY,
          eos: Sequence[int] | None = None, proposer: Proposer | None = None) -> Iterator[Step]:  # fmt: skip
    """The loop itself: yields each step as it is done; ends after an end-of-sequence token or `max_new_tokens`."""
    if not prompt_ids:
        raise CourseError("The prompt is empty: give at least one token.")
    if max_new_tokens < 1:
        raise CourseError("max_new_tokens must be at least 1.")
    end = set(eos_tokens(model) if eos is None else eos)
    wants_hidden = getattr(proposer, "wants_hidden", proposer is not None)
    decoder, choose = Decoder(model, keep_hidden=wants_hidden), Chooser(sampling)
    cache = KVCache.for_model(model, len(prompt_ids) + max_new_tokens + MOST_GUESSES)
    known, made, proposal = list(prompt_ids), 0, NOTHING
    feed = known
    while True:
        began, before = time.perf_counter(), cache.length
        kind = "decode" if before else "prefill"
        logits, hidden = decoder.step(feed, cache, proposal.parents, last_only=kind == "prefill")
        path, tokens, rows = kept_path(proposal, logits, choose)
        if kind == "decode":
            cache.keep(before, [0, *(i + 1 for i in path)])
        tokens = tokens[: max_new_tokens - made]
        tokens = tokens[: next((i + 1 for i, t in enumerate(tokens) if t in end), len(tokens))]
        rows = rows[: len(tokens)]
        said = logits[: len(rows)] if rows[-1] == len(rows) - 1 else logits[rows]  # in one piece if they are the first
        picked = -F.cross_entropy(said, torch.tensor(tokens, device=logits.device), reduction="none")
        known, made = known + tokens, made + len(tokens)
        done = made >= max_new_tokens or tokens[-1] in end
        step = Step(kind, 0.0, len(feed), before, proposal, tuple(path[: len(tokens)]), tuple(tokens),
                    tuple(picked.tolist()))  # fmt: skip
        proposal = NOTHING
        if proposer and not done:
            proposal = proposer.propose(known, None if hidden is None else hidden[rows[-1]])
            if len(proposal.tokens) > MOST_GUESSES:
                raise CourseError(f"A proposer guessed {len(proposal.tokens)} tokens; {MOST_GUESSES} are the most.")
        feed = [known[-1], *proposal.tokens]
        step.seconds = time.perf_counter() - began
        yield step
        if done:
            return


MOST_GUESSES = 128  # room in the cache for guesses beside what is certain


def stream(model, tokenizer, prompt: str | Sequence[int], *, stop: Sequence[str] = (),
           completion: Completion | None = None, **options) -> Iterator[str]:  # fmt: skip
    """Yields the answer's text piece by piece; a `completion` given to it is filled on the way.

    Text that might be the beginning of a stop string, or half a character, is held back until it is certain.
    """
    if isinstance(stop, str) or "" in stop:
        raise CourseError('Give stop strings as a list, none of them empty: stop=["```"].')
    ids = tokenizer(prompt, add_special_tokens=False).input_ids if isinstance(prompt, str) else list(prompt)
    completion = completion if completion is not None else Completion(0)
    completion.prompt_tokens = len(ids)
    end = set(eos_tokens(model) if options.get("eos") is None else options["eos"])
    shown = 0
    for step in steps(model, ids, **options):
        completion.steps.append(step)
        for used, (token, log_prob) in enumerate(zip(step.emitted, step.log_probs, strict=True), 1):
            completion.token_ids.append(token)
            completion.log_probs.append(log_prob)
            if token in end:
                completion.finish_reason = "eos"
                break
            if not stop:
                continue
            completion.text = tokenizer.decode(completion.token_ids, skip_special_tokens=True)
            found = [at for s in stop if (at := completion.text.find(s)) >= 0]
            if found:
                completion.text, completion.finish_reason = completion.text[: min(found)], "stop"
                step.emitted, step.log_probs = step.emitted[:used], step.log_probs[:used]  # what the user got
                step.accepted = step.accepted[:used]
                break
        if not stop:  # once a step is enough: nothing in between is looked for
            known = completion.token_ids[: -1 if completion.finish_reason == "eos" else None]
            completion.text = tokenizer.decode(known, skip_special_tokens=True)
        certain = len(completion.text)
        if completion.finish_reason == "length":
            certain -= _uncertain(completion.text, stop)
        if certain > shown:
            yield completion.text[shown:certain]
            shown = certain
        if completion.finish_reason == "stop":
            return
    if len(completion.text) > shown:
        yield completion.text[shown:]


def generate(model, tokenizer, prompt: str | Sequence[int], **options) -> Completion:
    """The whole answer at once; options as of `stream` and `steps`."""
    completion = Completion(0)
    for _ in stream(model, tokenizer, prompt, completion=completion, **options):
        pass
    return completion
