"""Does the cache hold what plain recomputation gives, whatever was done to it? Random sequences of all its operations.

Run in float64, where a wrong key shows as a difference a thousand times larger than rounding.
"""

from __future__ import annotations

import random

import torch

from helpers.decoding.forward import Decoder
from helpers.decoding.kv_cache import KVCache

MOST_ROWS, CAPACITY = 4, 64


@torch.inference_mode()
def equals_recomputation(model, seed: int, operations: int = 8, tolerance: float = 1e-9) -> bool:
    """Rows join (prefilled alone, with a guessed tree of which one path is kept), read more tokens, are cut back and
    leave, at random; whether every logit on the way equals that of a model that reads the row anew."""
    rng, decoder = random.Random(seed), Decoder(model)
    cache, rows = KVCache.for_model(model, CAPACITY, MOST_ROWS), []

    def some(most: int) -> list[int]:
        return [rng.randrange(model.config.vocab_size) for _ in range(rng.randint(1, most))]

    def equal(logits: torch.Tensor, row: list[int]) -> bool:
        wanted = model(torch.tensor([row])).logits[0, -len(logits) :]
        return bool((logits - wanted).abs().max() < tolerance)

    for _ in range(operations):
        choices = ["join"] * (len(rows) < MOST_ROWS) + ["read", "read", "cut", "leave"] * bool(rows)
        match rng.choice(choices):
            case "join":
                alone, row = KVCache.for_model(model, CAPACITY), some(6)
                decoder.step(row, alone)
                guesses = some(5)
                parents = [rng.randrange(-1, i) for i in range(len(guesses))]
                certain = some(1)
                logits, _ = decoder.step(certain + guesses, alone, parents)
                path = _path_to(rng.randrange(len(guesses)), parents)
                known = row + certain + [guesses[i] for i in path]
                if not equal(logits[[0, *(i + 1 for i in path)]], known):
                    return False
                alone.keep(len(row), [0, *(i + 1 for i in path)])
                cache.join(alone)
                rows.append(known)
            case "read" if max(map(len, rows)) + 4 <= CAPACITY:
                new = [some(4) for _ in rows]
                for r, logits in enumerate(decoder.batch(new, cache)):
                    rows[r] = rows[r] + new[r]
                    if not equal(logits, rows[r]):
                        return False
            case "cut":
                r = rng.randrange(len(rows))
                rows[r] = rows[r][: rng.randint(1, len(rows[r]))]
                cache.cut(len(rows[r]), r)
            case "leave":
                r = rng.randrange(len(rows))
                cache.leave(r)
                rows[r] = rows[-1]
                rows.pop()
    return cache.lengths == [len(row) for row in rows]


def _path_to(guess: int, parents: list[int]) -> list[int]:
    """The guesses from the tree's root to `guess`."""
    path = [guess]
    while parents[path[0]] >= 0:
        path.insert(0, parents[path[0]])
    return path
