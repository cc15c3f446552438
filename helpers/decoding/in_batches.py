"""Many answers at a time, with guesses or without: for counting and learning from them, not for timing a request.

Batching is continuous (Yu et al., "Orca", 2022): where an answer ends, the next prompt joins, and nobody waits for the
longest answer.
"""

from __future__ import annotations

from collections import abc, deque
from collections.abc import Callable

import torch

from helpers.decoding.forward import Forward, eos_tokens
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.proposals import MAX_GUESSES
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence


@torch.inference_mode()
def write_in_batches(
    model,
    prompts: abc.Sequence[abc.Sequence[int]],
    proposer: Proposer | None = None,
    *,
    max_new_tokens: int = 256,
    batch_size: int = 8,
    after_each: Callable[[Sequence], None] = lambda sequence: None,
) -> list[Sequence]:
    """Greedy answers to prompts (token ids), up to `batch_size` of them written at a time; `after_each` is called with
    a sequence after each of its steps.

    A model that can't read several sequences at once answers one prompt after the other.
    """
    forward, eos = Forward(model), eos_tokens(model)
    sequences = [Sequence(prompt, max_new_tokens=max_new_tokens, eos=eos) for prompt in prompts]
    slots = 1 if forward.support.batches else batch_size
    longest = max((sequence.max_length for sequence in sequences), default=0)
    cache = KVCache.for_model(model, longest + (MAX_GUESSES if proposer else 0), slots)
    waiting, running = deque(sequences), {}
    while waiting or running:
        if waiting and len(running) < slots:
            # A prompt is read by itself: beside it the others' single tokens would be filled up to its length.
            batch = [waiting.popleft()]
            forward.check_request(batch[0], guesses=proposer is not None)
            running[batch[0].id] = batch[0]
        else:
            batch = [running[i] for i in cache.lengths]  # in the order of their rows, which are then read as they lie
        feeds = [sequence.feed() for sequence in batch]
        for sequence, feed, reading in zip(batch, feeds, forward(feeds, cache), strict=True):
            verified = sequence.take(feed, *reading)
            cache.keep(sequence.id, sequence.cached - len(verified.accepted), verified.accepted)
            after_each(sequence)
        done = [sequence for sequence in batch if sequence.finish_reason]
        for sequence in done:
            cache.free(running.pop(sequence.id).id)
            if proposer:
                proposer.release(sequence)
        going = [sequence for sequence in batch if not sequence.finish_reason]
        if proposer and going:
            hidden = torch.stack([sequence.hidden for sequence in going])
            for sequence, proposal in zip(going, proposer.propose(going, hidden), strict=True):
                sequence.propose(proposal)
    return sequences


def answers_in_batches(
    model, prompts: abc.Sequence[abc.Sequence[int]], proposer: Proposer | None = None, **options
) -> list[list[int]]:
    """The greedy answer to each prompt as token ids; `options` are those of write_in_batches."""
    return [sequence.written for sequence in write_in_batches(model, prompts, proposer, **options)]
