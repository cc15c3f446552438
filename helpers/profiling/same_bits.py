"""Whether a token's logits depend on how its text is read: alone, in a prompt, as a guess, in a batch (notebook 00c).

A library adds up the same numbers in another order when it reads another number of tokens, and then rounds otherwise.
Where that can't happen a model is called batch invariant (He et al. 2025, "Defeating Nondeterminism in LLM Inference").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.kv_cache import KVCache

ALL_AT_ONCE, AS_GUESSES, IN_A_BATCH = "all at once", "as guesses", "in a batch"


@dataclass(frozen=True)
class Differences:
    """Of the logits after a text, how many differ from those of the same text read one by one, and by how much at
    most."""

    numbers: int
    of: int
    largest: float


@torch.inference_mode()
def against_one_by_one(model, texts: Sequence[Sequence[int]]) -> dict[str, list[Differences]]:
    """For each way to read a text (token ids, two at least), the differences of each text to one token a step: all
    tokens in one step; the first token and all others as a chain of guesses; all in one step beside another text. Ways
    that the model's kind can't be read in exactly are left out."""
    forward = Forward(model)
    found: dict[str, list[Differences]] = {}
    for place, text in enumerate(texts):
        wanted = _last_logits(forward, [[Feed(0, [token])] for token in text])
        for way, feeds in _ways(forward, text, texts[place - 1]).items():
            found.setdefault(way, []).append(_differences(_last_logits(forward, [feeds]), wanted))
    return found


def _ways(forward: Forward, text: Sequence[int], another: Sequence[int]) -> dict[str, list[Feed]]:
    ways = {ALL_AT_ONCE: [Feed(0, text)]}
    if not forward.support.guesses:
        ways[AS_GUESSES] = [Feed(0, text, tuple(range(-1, len(text) - 2)))]
    if not forward.support.batches:
        ways[IN_A_BATCH] = [Feed(0, text), Feed("another", another)]
    return ways


def _last_logits(forward: Forward, steps: Sequence[Sequence[Feed]]) -> torch.Tensor:
    """(vocabulary): the answer to the first feed of the last step."""
    most = max(sum(len(feeds[0]) for feeds in steps), *(len(feed) for feed in steps[0]))
    cache = KVCache.for_model(forward.model, most, len(steps[0]))
    for feeds in steps:
        readings = forward(feeds, cache)
    return readings[0].logits[-1]


def _differences(found: torch.Tensor, wanted: torch.Tensor) -> Differences:
    return Differences(int((found != wanted).sum()), wanted.numel(), float((found - wanted).abs().max()))
