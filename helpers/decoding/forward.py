"""`forward(feeds, cache)`: one run of the model, after asking whether its architecture can do that exactly."""

from __future__ import annotations

from collections import abc

import torch

from helpers.decoding.feed import Feed
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.limits import Limits
from helpers.decoding.reading import Reading, read
from helpers.decoding.sequence import Sequence
from helpers.decoding.support import check_request, check_step, support_of


class Forward:
    """`forward(feeds, cache)` reads the feeds' tokens into the cache, all in one run of the model.

    What the model's architecture can't do exactly is refused in a sentence (support.py).
    """

    def __init__(self, model):
        self.model, self.device, self.dtype = model, model.device, model.dtype
        self.limits = Limits.of(model.config.get_text_config())
        self.support = support_of(model)

    def check_request(self, sequence: Sequence, guesses: bool) -> None:
        """Refuse at once a sequence that could not be written to its end."""
        check_request(self.model, self.support, self.limits, sequence.max_length, sequence.num_prompt_tokens, guesses)

    def __call__(self, feeds: abc.Sequence[Feed], cache: KVCache) -> list[Reading]:
        if not torch.is_inference_mode_enabled():  # a decode loop is in it already, and entering it again takes time
            with torch.inference_mode():
                return self(feeds, cache)
        starts = cache.begin(feeds)
        try:
            check_step(self.model, self.support, self.limits, feeds, starts)
            return read(self.model, self.limits.window, feeds, starts, cache)
        except BaseException:  # an interrupt, too: the cache must not hold what was never read
            cache.rollback(feeds, starts)
            raise


def eos_tokens(model) -> list[int]:
    """The model's end-of-sequence tokens."""
    eos = model.generation_config.eos_token_id
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
