"""What a model's architecture lets the decoder do exactly: read single tokens, guesses, several sequences at once.

Whether its attention takes the course's cache and masks is tried once, on a short prompt, against reading it anew:
names of architectures would only be a hope. What depends on the length stands in the configuration: windows, and
position encodings that change as the text grows.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from helpers.decoding.feed import Feed
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.reading import read
from helpers.errors import CourseError


class UnsupportedModelError(CourseError):
    """The model's architecture does not let the decoder do that exactly."""


@dataclass(frozen=True)
class Support:
    """What was tried: empty where it gave the same logits as reading anew, else what went wrong."""

    tokens: str
    guesses: str
    batches: str


# A sliding window is what all layers share and our masks know; these are some layers', or chunks.
OTHER_WINDOWS = ("attention_chunk_size", "window_size", "attention_window_size", "local_attention")


@dataclass(frozen=True)
class Limits:
    """What depends on the length: a sliding `window` (all layers'), the length up to which layers of different kinds
    see the same (`mixed_up_to`), and where the rotary position encoding changes: `dynamic_after` (dynamic NTK: with
    every token), `switch_after` (longrope: once)."""

    window: int | None = None
    mixed_up_to: int | None = None
    dynamic_after: int | None = None
    switch_after: int | None = None

    @classmethod
    def of(cls, config) -> Limits:
        """The limits of a transformers text configuration."""
        kinds = set(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None) if kinds != {"full_attention"} else None
        sizes = [getattr(config, name, None) for name in OTHER_WINDOWS]
        if len(kinds) > 1:
            sizes, window = [*sizes, window], None
        mixed = min((size for size in sizes if size), default=None)
        dynamic = switch = None
        for rope in _ropes(config):
            longest = getattr(config, "max_position_embeddings", None)
            original = rope.get("original_max_position_embeddings") or longest
            if "dynamic" in rope["rope_type"]:
                dynamic = min(original, longest)
            elif rope["rope_type"] == "longrope":
                switch = getattr(config, "original_max_position_embeddings", None) or original
        return cls(window, mixed, dynamic, switch)


def _ropes(config) -> list[dict]:
    """The rotary settings of a configuration, which may have them for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    settings = [rope, *(each for each in rope.values() if isinstance(each, dict))]
    return [each for each in settings if isinstance(each.get("rope_type"), str)]


def check_request(model, max_length: int, prompt_length: int, guesses: bool) -> None:
    """Refuse at once a request of up to `max_length` tokens that could not go on to its end."""
    support, limits = support_of(model), Limits.of(model.config.get_text_config())
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


_NO_LIMITS = Limits()
_tried: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _check_kind(model, trouble: str, what: str) -> None:
    if trouble:
        raise UnsupportedModelError(
            f"The attention of this model ({model.config.model_type}) takes no masks of the course's ({trouble}), so "
            f"{what} can't be read: take a Llama, Mistral, Qwen or another model with rotary positions, or decode "
            "without a proposer, one prompt at a time."
        )


def support_of(model) -> Support:
    """What the model does exactly, tried once; UnsupportedModelError where that is nothing at all."""
    if model not in _tried:
        _tried[model] = Support(*(_trouble(trial, model) for trial in (_one_by_one, _with_guesses, _two_at_once)))
    if _tried[model].tokens:
        raise UnsupportedModelError(
            f"A model of the kind {model.config.model_type} does not work with the course's KV cache "
            f"({_tried[model].tokens}): take a Llama, Mistral, Qwen or another decoder with plain attention, or "
            "transformers' own generate."
        )
    return _tried[model]


def _trouble(trial, model) -> str:
    """What is wrong with a trial, which should give at each place the logits of reading the same tokens anew."""
    half = model.dtype in (torch.bfloat16, torch.float16)
    try:
        with torch.inference_mode():
            for tokens, logits in trial(model):
                anew = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits[0, -1]
                if not (logits - anew).abs().max() <= (0.05 if half else 1e-3) * anew.abs().max():
                    return "other logits than without a cache"
    except CourseError:  # a sentence of its own
        raise
    except Exception as error:  # whatever an architecture does not take
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:100]}"
    return ""


PROMPTS = (5, 3, 8, 6, 7, 9), (4, 9, 3)


def _one_by_one(model):
    """A prompt, then one token and another."""
    cache, known = KVCache.for_model(model, 16), list(PROMPTS[0])
    yield known, _read(model, [Feed(0, known)], cache)[0].logits[-1]
    for token in (3, 8):
        known = [*known, token]
        yield known, _read(model, [Feed(0, [token])], cache)[0].logits[-1]


def _with_guesses(model):
    """Two certain tokens, then a tree of two branches."""
    cache, known, certain, guesses = KVCache.for_model(model, 16), list(PROMPTS[0]), [3, 8], [4, 5, 6, 7]
    _read(model, [Feed(0, known)], cache)
    logits = _read(model, [Feed(0, certain + guesses, (-1, 0, -1, 2))], cache)[0].logits
    for path in ((), (0,), (0, 1), (2,), (2, 3)):
        yield known + certain + [guesses[i] for i in path], logits[path[-1] + 1 if path else 0]


def _two_at_once(model):
    """Prompts of different lengths, then unlike numbers of tokens."""
    cache, known = KVCache.for_model(model, 16, 2), [list(prompt) for prompt in PROMPTS]
    for new in (known, [[3], [8, 5]], [[4], [6]]):
        readings = _read(model, [Feed(row, tokens) for row, tokens in enumerate(new)], cache)
        known = known if new is known else [[*k, *more] for k, more in zip(known, new)]
        yield from zip(known, (reading.logits[-1] for reading in readings))


def _read(model, feeds: Sequence[Feed], cache: KVCache):
    return read(model, Limits.of(model.config.get_text_config()).window, feeds, cache.begin(feeds), cache)
