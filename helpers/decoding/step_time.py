"""How long one step of the model takes for so many rows: the verify cost, on which all of speculation depends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from helpers.decoding.generate import Decoder
from helpers.decoding.kv_cache import KVCache
from helpers.measure import synchronize


@torch.inference_mode()
def step_seconds(model, rows: Sequence[int], *, context: int = 128, rounds: int = 15,
                 before: Callable[[], object] = lambda: None) -> dict[int, list[float]]:  # fmt: skip
    """Seconds of steps that read `rows` tokens after `context` tokens: `rounds` of each, the row counts taking turns.

    `before` is called ahead of each step, off the clock: something that empties the caches, say.
    """
    decoder, cache = Decoder(model), KVCache.for_model(model, context + max(rows))
    tokens = torch.randint(3, model.config.vocab_size, (context + max(rows),)).tolist()
    decoder.step(tokens[:context], cache)
    found: dict[int, list[float]] = {n: [] for n in rows}
    for turn in range(rounds + 2):
        for n in rows:
            before()
            synchronize(decoder.device)
            began = time.perf_counter()
            decoder.step(tokens[:n], cache)
            synchronize(decoder.device)
            if turn >= 2:
                found[n].append(time.perf_counter() - began)
            cache.cut(context)
    return found
