"""One run of the model over what several sequences feed it: chains and trees, prompts and single tokens alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from helpers.decoding.feed import Feed
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.masks import step_bias


class Reading(NamedTuple):
    """What the model answered to one feed: logits (n, vocabulary), in float32 at least, and hidden states (n, hidden)
    at the input of its lm_head, for the n last tokens that the feed wants answers to."""

    logits: torch.Tensor
    hidden: torch.Tensor


def read(model, window: int | None, feeds: Sequence[Feed], starts: Sequence[int], cache: KVCache) -> list[Reading]:
    """The run itself, of feeds that have their places in the cache. A model that reads rows of one length has shorter
    feeds filled up on the left."""
    if getattr(model, "reads_feeds", False):
        logits, hidden = model.read(feeds, starts, cache)
        counts = [feed.num_wanted for feed in feeds]
        return list(map(Reading, logits.split(counts), hidden.split(counts)))
    n, wanted = max(map(len, feeds)), max(1, *(feed.num_wanted for feed in feeds))
    fill = [[0] * (n - len(feed)) for feed in feeds]
    tokens = [[*left, *feed.tokens] for left, feed in zip(fill, feeds)]
    places = [[*left, *(start + k for k in f.position_offsets)] for left, f, start in zip(fill, feeds, starts)]
    ids, positions = torch.tensor([tokens, places], device=model.device)
    bias = None if _plain(feeds, starts, n, window) else step_bias(feeds, starts, window, model.dtype, model.device)
    logits, hidden = _run(
        model,
        input_ids=ids,
        position_ids=positions,
        attention_mask=bias,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=wanted,
    )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return [
        Reading(_last(row_logits, feed.num_wanted), _last(row_hidden, feed.num_wanted))
        for feed, row_logits, row_hidden in zip(feeds, logits, hidden)
    ]


def _last(states: torch.Tensor, n: int) -> torch.Tensor:
    return states if len(states) == n else states[len(states) - n :]


def _run(model, **inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the hidden states at the lm_head's input, which transformers' models don't hand out."""
    if getattr(model, "returns_hidden", False):
        return model(**inputs)
    states: list[torch.Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda module, args: states.append(args[0]))
    try:
        return model(**inputs).logits, states[0]
    finally:
        hook.remove()


def _plain(feeds: Sequence[Feed], starts: Sequence[int], n: int, window: int | None) -> bool:
    """Whether no token has anything to hide from another one that causal order does not: the model's own mask will do,
    or none."""
    if len(feeds) == 1:
        return not feeds[0].parents and (n == 1 or starts[0] == 0)
    if window or len(set(starts)) > 1 or any(feed.parents or len(feed) < n for feed in feeds):
        return False
    return n == 1 or starts[0] == 0
