"""Does a cache hold what plain recomputation gives, whatever was done to it? Random sequences of all its operations.

Run in float64, where a wrong key shows as a difference a thousand times larger than rounding. Any cache with the verbs
of kv_cache.py can be checked.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import torch

from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.kv_cache import KVCache

MAX_BATCH_SIZE, CAPACITY = 4, 64


@torch.inference_mode()
def equals_recomputation(
    model, seed: int, operations: int = 8, tolerance: float = 1e-9, make: Callable = KVCache.for_model
) -> bool:
    """Sequences come and are read together, in parts of any size and with trees of guesses of which one path is kept,
    are cropped and leave, at random; whether every logit on the way equals that of a model that reads it all anew."""
    rng, forward, cache = random.Random(seed), Forward(model), make(model, CAPACITY, MAX_BATCH_SIZE)
    known: dict[int, list[int]] = {}
    names = itertools.count()

    def tokens(max_tokens: int) -> list[int]:
        return [rng.randrange(model.config.vocab_size) for _ in range(rng.randint(1, max_tokens))]

    def right(sequence: list[int], logits: torch.Tensor) -> bool:
        anew = model(torch.tensor([sequence])).logits[0, -1]
        return bool((logits - anew).abs().max() < tolerance)

    for _ in range(operations):
        match rng.choice(["read"] * 3 + ["crop", "free"] * bool(known)):
            case "read":
                chosen = rng.sample(sorted(known), rng.randint(0, len(known)))
                if not chosen or (len(known) < MAX_BATCH_SIZE and rng.random() < 0.5):
                    chosen.append(next(names) if len(known) < MAX_BATCH_SIZE else min(known))
                feeds = [_random_feed(name, tokens, rng) for name in chosen]
                if not all(cache.can_append(feed.sequence_id, len(feed)) for feed in feeds):
                    continue
                for feed, reading in zip(feeds, forward(feeds, cache), strict=True):
                    before = known.get(feed.sequence_id, [])
                    certain = before + list(feed.tokens[: feed.num_certain])
                    path = _path_to(rng.randrange(-1, len(feed.parents)), feed.parents)
                    for end, place in enumerate([0, *(i + 1 for i in path)]):
                        kept = certain + [feed.tokens[feed.num_certain + i] for i in path[:end]]
                        if not right(kept, reading.logits[place]):
                            return False
                    cache.keep(feed.sequence_id, len(certain), path)
                    known[feed.sequence_id] = kept
            case "crop":
                name = rng.choice(sorted(known))
                known[name] = known[name][: rng.randint(1, len(known[name]))]
                cache.crop(len(known[name]), name)
            case "free":
                name = rng.choice(sorted(known))
                cache.free(name)
                del known[name]
    return cache.lengths == {name: len(sequence) for name, sequence in known.items()}


def _random_feed(name: int, tokens: Callable, rng: random.Random) -> Feed:
    """Certain tokens, and half of the time a tree of guesses."""
    certain, guesses = tokens(5), tokens(5) if rng.random() < 0.5 else []
    return Feed(name, certain + guesses, [rng.randrange(-1, i) for i in range(len(guesses))])


def _path_to(guess: int, parents: list[int]) -> list[int]:
    """The guesses from the tree's root to `guess`; none for -1."""
    path: list[int] = []
    while guess >= 0:
        path.insert(0, guess)
        guess = parents[guess]
    return path
