"""Where two answers to one prompt part, and whether rounding could have decided it (notebook 08b)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """The place of the first token at which two answers differ, or one of them has ended; None if they are equal."""
    pairs = enumerate(zip_longest(ours, theirs))
    return next((place for place, (a, b) in pairs if a != b), None)


@torch.inference_mode()
def margin(model, prompt: Sequence[int], ours: Sequence[int], theirs: Sequence[int]) -> float | None:
    """By how much the model prefers our token to theirs where the answers part, in nats (a difference of
    log-probabilities); None where they don't part, or where one of them only goes on.

    Near 0 the two tokens are equally good: rounding decides. Below 0 the model prefers theirs.
    """
    place = first_difference(ours, theirs)
    if place is None or place >= min(len(ours), len(theirs)):
        return None
    text = torch.tensor([[*prompt, *ours[:place]]], device=model.device)
    logits = model(input_ids=text, use_cache=False).logits[0, -1].float()
    return float(logits[ours[place]] - logits[theirs[place]])
