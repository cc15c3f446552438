"""How long one step of the model takes for so many tokens: the verify cost, on which all of speculation depends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.kv_cache import KVCache
from helpers.measuring.cost_model import kv_heads_of
from helpers.measuring.timing import take_turns


def step_seconds(
    model,
    num_tokens: Sequence[int],
    *,
    context: int = 128,
    rounds: int = 15,
    before: Callable[[], object] = lambda: None,
) -> dict[int, list[float]]:
    """Seconds of steps that read each of `num_tokens` tokens after `context` tokens: `rounds` of each, in turns.

    `before` is called ahead of each step, off the clock: something that empties the processor's caches, say.
    """
    return steps_in_turns({"": model}, num_tokens, context=context, rounds=rounds, before=before)[""]


@torch.inference_mode()
def steps_in_turns(
    models: Mapping[str, torch.nn.Module],
    num_tokens: Sequence[int],
    *,
    context: int = 128,
    rounds: int = 15,
    before: Callable[[], object] = lambda: None,
) -> dict[str, dict[int, list[float]]]:
    """As `step_seconds`, for several models that take turns: their times can be compared round by round.

    With `context=0` a step is the prefill of a prompt of so many tokens.
    """
    vocabulary = min(model.config.vocab_size for model in models.values())
    tokens = torch.randint(3, vocabulary, (context + max(num_tokens),)).tolist()
    forwards = {name: Forward(model) for name, model in models.items()}
    caches = {name: KVCache.for_model(model, context + max(num_tokens)) for name, model in models.items()}
    if context:
        for name, forward in forwards.items():
            forward([Feed(0, tokens[:context])], caches[name])
    arms = {
        (name, n): partial(forwards[name], [Feed(0, tokens[:n], num_logits=n if context else 1)], caches[name])
        for n in num_tokens
        for name in models
    }
    times = take_turns(
        arms,
        rounds,
        warmup=2,
        device=_device(models),
        before=lambda arm: before(),
        after=lambda arm, readings: caches[arm[0]].crop(context),
    )
    return {name: {n: times[name, n] for n in num_tokens} for name in models}


@torch.inference_mode()
def batch_step_seconds(
    models: Mapping[str, torch.nn.Module], batch_size: int, *, context: int = 128, rounds: int = 15, uneven: bool = True
) -> dict[str, list[float]]:
    """Seconds of whole decode steps of `batch_size` sequences that hold `context` tokens each, the models taking turns.

    With `uneven` one sequence is a token shorter, as in any real batch: then the step needs a mask. The cache is filled
    with random keys and values, since a step costs the same whatever they are.
    """
    caches = {name: _full_cache(model, batch_size, context, uneven) for name, model in models.items()}
    lengths = {name: dict(cache.lengths) for name, cache in caches.items()}
    feeds = [Feed(sequence, [3]) for sequence in range(batch_size)]

    def crop_back(name: str, readings) -> None:
        for sequence, length in lengths[name].items():
            caches[name].crop(length, sequence)

    arms = {name: partial(Forward(model), feeds, caches[name]) for name, model in models.items()}
    return take_turns(arms, rounds, warmup=2, device=_device(models), after=crop_back)


def _device(models: Mapping[str, torch.nn.Module]) -> torch.device:
    return next(iter(models.values())).device


def _full_cache(model, batch_size: int, context: int, uneven: bool) -> KVCache:
    heads, size = kv_heads_of(model.config)
    cache = KVCache.for_model(model, context + 1, batch_size)
    for layer in range(model.config.num_hidden_layers):
        shape = (batch_size, heads, context, size)
        cache.update(*(torch.randn(shape, dtype=model.dtype, device=model.device) for _ in range(2)), layer)
    if uneven:
        cache.crop(context - 1)
    return cache
