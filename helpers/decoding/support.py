"""What a model's architecture lets the decoder do exactly: read single tokens, guesses, several sequences at once.

Everything else is refused in a sentence, before anything is lost: what was tried once (trials.py), and what depends on
the length (limits.py).
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from helpers.decoding.feed import Feed
from helpers.decoding.limits import Limits
from helpers.decoding.trials import Support, tried
from helpers.errors import CourseError

_NO_LIMITS = Limits()
_tried: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class UnsupportedModelError(CourseError):
    """The model's architecture does not let the decoder do that exactly."""


def check_request(model, support: Support, limits: Limits, max_length: int, prompt_length: int, guesses: bool) -> None:
    """Refuse at once a request of up to `max_length` tokens that could not go on to its end."""
    if guesses:
        _check_kind(model, support.guesses, "guesses")
        for name, length in (("dynamic RoPE", limits.dynamic_after), ("mix of windows", limits.mixed_up_to)):
            if length is not None and max_length > length:
                raise UnsupportedModelError(
                    f"With this model's {name} guesses would change the answer past {length} tokens: keep prompt and "
                    f"max_new_tokens ({max_length}) below that, or decode without a proposer."
                )
    if limits.switch_after is not None and prompt_length <= limits.switch_after < max_length:
        raise UnsupportedModelError(
            f"This model's longrope changes all positions at {limits.switch_after} tokens, and the cache can't follow: "
            f"keep prompt and max_new_tokens ({max_length}) below that, or give a longer prompt."
        )


def check_step(model, support: Support, limits: Limits, feeds: Sequence[Feed], starts: Sequence[int]) -> None:
    """Refuse a step that the model could not do exactly."""
    several, guesses = len(feeds) > 1, any(feed.parents for feed in feeds)
    if several:
        _check_kind(model, support.batches, "several sequences at once")
    if guesses:
        _check_kind(model, support.guesses, "guesses")
    if limits == _NO_LIMITS:
        return
    ends = [start + len(feed) for start, feed in zip(starts, feeds)]
    parts = any(start and len(feed) > 1 for start, feed in zip(starts, feeds))  # a chunk of a prompt, or guesses
    for name, length in (("dynamic RoPE", limits.dynamic_after), ("mix of windows", limits.mixed_up_to)):
        if length is not None and max(ends) > length and (several or parts):
            raise UnsupportedModelError(
                f"With this model's {name} only single tokens of one sequence can be read past {length} tokens: take "
                "no guesses, no batches and no chunks of a prompt there."
            )
    if limits.switch_after is not None and (several or min(starts)):
        sides = {length > limits.switch_after for length in (*ends, *filter(None, starts))}
        if len(sides) > 1:
            raise UnsupportedModelError(
                f"This model's longrope changes all positions at {limits.switch_after} tokens, and the cache holds "
                "what was read before that: read the whole text anew."
            )


def _check_kind(model, trouble: str, what: str) -> None:
    if trouble:
        raise UnsupportedModelError(
            f"The attention of this model ({model.config.model_type}) takes no masks of the course's ({trouble}), so "
            f"{what} can't be read: take a Llama, Mistral, Qwen or another model with rotary positions, or decode "
            "without a proposer, one prompt at a time."
        )


def check_reads_chunks(model) -> None:
    """Refuse a model that can't read several tokens after others, as a draft does."""
    _check_kind(model, support_of(model).guesses, "several tokens after others")


def support_of(model) -> Support:
    """What the model does exactly, tried once; UnsupportedModelError where that is nothing at all."""
    if getattr(model, "training", False):
        raise UnsupportedModelError("This model is in training mode, where dropout changes answers: call model.eval().")
    attention = getattr(model.config, "_attn_implementation", "")  # another one takes other masks
    by_attention = _tried.setdefault(model, {})
    if attention not in by_attention:
        by_attention[attention] = tried(model)
    support = by_attention[attention]
    if support.tokens:
        raise UnsupportedModelError(
            f"A model of the kind {model.config.model_type} does not work with the course's KV cache "
            f"({support.tokens}): take a Llama, Mistral, Qwen or another decoder with plain attention, or "
            "transformers' own generate."
        )
    return support
