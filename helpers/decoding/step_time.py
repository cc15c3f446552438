"""How long one step of the model takes for so many rows: the verify cost, on which all of speculation depends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import torch

from helpers.decoding.generate import Decoder
from helpers.decoding.kv_cache import KVCache
from helpers.measure import synchronize


@torch.inference_mode()
def step_seconds(model, rows: Sequence[int], *, context: int = 128, rounds: int = 15) -> dict[int, float]:
    """Median seconds of a step that reads `rows` tokens after `context` tokens, the row counts taking turns."""
    decoder, cache = Decoder(model), KVCache.for_model(model, context + max(rows))
    tokens = torch.randint(3, model.config.vocab_size, (context + max(rows),)).tolist()
    decoder.step(tokens[:context], cache)
    found: dict[int, list[float]] = {n: [] for n in rows}
    for turn in range(rounds + 2):
        for n in rows:
            synchronize(decoder.device)
            began = time.perf_counter()
            decoder.step(tokens[:n], cache)
            synchronize(decoder.device)
            if turn >= 2:
                found[n].append(time.perf_counter() - began)
            cache.cut(context)
    return {n: median(times) for n, times in found.items()}
