"""Does a model's attention take the course's cache and masks? Tried on a short prompt, against reading it anew.

A list of architectures would only be a hope: what reads tokens wrong often does so without an error.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from helpers.decoding.feed import Feed
from helpers.decoding.in_float32 import HALF, InFloat32
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.limits import Limits
from helpers.decoding.reading import read
from helpers.errors import CourseError

PROMPTS = (5, 3, 8, 6, 7, 9), (4, 9, 3)
# Of what the places differ by. Half precision rounds more than mistakes were seen to make (.28 in a fine-tuned model of
# 30 layers, .10), so that float32 decides there; its own tolerance is for weights that can't be cast, quantized ones.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


@dataclass(frozen=True)
class Support:
    """What was tried: empty where it gave the same logits as reading anew, else what went wrong."""

    tokens: str
    guesses: str
    batches: str


def tried(model) -> Support:
    """What the model does exactly, by a trial of each kind."""
    return Support(*(_trouble(trial, model) for trial in (_one_by_one, _with_guesses, _two_at_once)))


def _trouble(trial, model) -> str:
    """What is wrong with a trial, which should give at each place the logits of reading the same tokens anew."""
    try:
        # In inference mode InFloat32 would not see the casts of autocast.
        with torch.inference_mode(False), torch.no_grad():
            cached, anew, dtype = _logits(trial, model)
            same = _same(trial, model, cached, anew, dtype) if dtype in HALF else _within(dtype, cached, anew)
            return "" if same else "other logits than without a cache"
    except CourseError:  # a sentence of its own
        raise
    except Exception as error:  # whatever an architecture does not take
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:100]}"


def _logits(trial, model) -> tuple[torch.Tensor, torch.Tensor, torch.dtype]:
    """Logits (places, vocabulary) as the trial reads them, and as the model gives them without a cache, in float32 at
    least; and the dtype that the model computes in: half precision, where its weights or its logits are (autocast)."""
    cached, anew = [], []
    for text, logits in trial(model):
        cached.append(logits)
        # In between, since a model may keep what it has read in itself, and not in the cache.
        anew.append(model(input_ids=torch.tensor([text], device=model.device), use_cache=False).logits[0, -1])
    exact = torch.promote_types(model.dtype, torch.float32)
    dtype = next((dtype for dtype in (model.dtype, anew[0].dtype) if dtype in HALF), model.dtype)
    return torch.stack(cached).to(exact), torch.stack(anew).to(exact), dtype


def _within(dtype: torch.dtype, cached: torch.Tensor, anew: torch.Tensor) -> bool:
    """Whether they differ by less than the tolerance, as a share of what the places differ by: what all logits have in
    common says nothing."""
    difference, spread = (cached - anew).abs().max(), (anew - anew.mean(0)).abs().max()
    return bool(difference <= TOLERANCE[dtype] * spread)


def _same(trial, model, cached: torch.Tensor, anew: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether logits of half precision differ by rounding alone: they don't in float32, and what was cached is about as
    near to float32's as what was read anew."""
    if _within(torch.float32, cached, anew):
        return True
    try:
        with InFloat32(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mismatch dtype")  # rms_norm looks before InFloat32 has cast the weight
            cached_exactly, exact, _ = _logits(trial, model)
    except Exception:
        return _within(dtype, cached, anew)
    near = (cached - exact).abs().max() <= 3 * (anew - exact).abs().max()
    return bool(near and _within(torch.float32, cached_exactly, exact))


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
    cache = KVCache.for_model(model, 16, 2)
    texts = [[], []]
    for new in (PROMPTS, ([3], [8, 5]), ([4], [6])):
        readings = _read(model, [Feed(row, tokens) for row, tokens in enumerate(new)], cache)
        texts = [[*text, *tokens] for text, tokens in zip(texts, new)]
        yield from zip(texts, (reading.logits[-1] for reading in readings))


def _read(model, feeds: Sequence[Feed], cache: KVCache):
    return read(model, Limits.of(model.config.get_text_config()).window, feeds, cache.begin(feeds), cache)
