"""How long one step of the model takes for so many rows: the verify cost, on which all of speculation depends."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from helpers.decoding.forward import Decoder
from helpers.decoding.kv_cache import KVCache
from helpers.measuring.cost_model import kv_heads_of
from helpers.measuring.timing import synchronize


def step_seconds(model, rows: Sequence[int], *, context: int = 128, rounds: int = 15,
                 before: Callable[[], object] = lambda: None) -> dict[int, list[float]]:  # fmt: skip
    """Seconds of steps that read `rows` tokens after `context` tokens: `rounds` of each, the row counts taking turns.

    `before` is called ahead of each step, off the clock: something that empties the caches, say.
    """
    return steps_in_turns({"": model}, rows, context=context, rounds=rounds, before=before)[""]


@torch.inference_mode()
def steps_in_turns(arms: Mapping[str, object], rows: Sequence[int], *, context: int = 128, rounds: int = 15,
                   before: Callable[[], object] = lambda: None) -> dict[str, dict[int, list[float]]]:  # fmt: skip
    """As `step_seconds`, for several models that take turns: their times can be compared round by round.

    With `context=0` a step is the prefill of a prompt of so many tokens.
    """
    vocabulary = min(model.config.vocab_size for model in arms.values())
    tokens = torch.randint(3, vocabulary, (context + max(rows),)).tolist()
    decoders = {name: Decoder(model) for name, model in arms.items()}
    caches = {name: KVCache.for_model(model, context + max(rows)) for name, model in arms.items()}
    if context:
        for name, decoder in decoders.items():
            decoder.step(tokens[:context], caches[name])
    found: dict[str, dict[int, list[float]]] = {name: {n: [] for n in rows} for name in arms}
    order = list(arms)
    for turn in range(rounds + 2):
        for n, name in itertools.product(rows, order):
            before()
            synchronize(decoders[name].device)
            began = time.perf_counter()
            decoders[name].step(tokens[:n], caches[name])
            synchronize(decoders[name].device)
            if turn >= 2:
                found[name][n].append(time.perf_counter() - began)
            caches[name].cut(context)
        order.reverse()
    return found


@torch.inference_mode()
def batch_step_seconds(arms: Mapping[str, object], rows: int, *, context: int = 128, rounds: int = 15,
                       uneven: bool = True) -> dict[str, list[float]]:  # fmt: skip
    """Seconds of whole decode steps of `rows` rows that hold `context` tokens each, the models in `arms` taking turns.

    With `uneven` one row is a token shorter, as in any real batch: then the step needs a mask. The cache is filled with
    random keys and values, since a step costs the same whatever they are.
    """
    decoders = {name: Decoder(model) for name, model in arms.items()}
    caches = {name: _full_cache(model, rows, context, uneven) for name, model in arms.items()}
    found: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 2):
        for name, decoder in decoders.items():
            lengths = caches[name].lengths
            synchronize(decoder.device)
            began = time.perf_counter()
            decoder.batch([[3]] * rows, caches[name])
            synchronize(decoder.device)
            if turn >= 2:
                found[name].append(time.perf_counter() - began)
            for row, length in enumerate(lengths):
                caches[name].cut(length, row)
    return found


def _full_cache(model, rows: int, context: int, uneven: bool) -> KVCache:
    heads, size = kv_heads_of(model.config)
    cache = KVCache.for_model(model, context + 1, rows)
    for layer in cache.layers:
        shape = (rows, heads, context, size)
        layer.update(*(torch.randn(shape, dtype=model.dtype, device=model.device) for _ in range(2)))
    if uneven:
        cache.cut(context - 1, 0)
    return cache
