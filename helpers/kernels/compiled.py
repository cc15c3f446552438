"""Plain greedy decoding with a compiled step: the library's static cache, one shape, torch.compile (notebook 08)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from helpers.decoding.forward import eos_tokens
from helpers.errors import CourseError
from helpers.kernels import torch_compile


class CompiledGreedy:
    """Called with a prompt's token ids it returns the answer's. The prompt is read as it comes; a step always reads one
    token and looks at `capacity` places, so that it is compiled once."""

    def __init__(self, model, capacity: int = 512):
        from transformers import StaticCache

        self.model, self.capacity = model, capacity
        self.cache = StaticCache(config=model.config, max_cache_len=capacity)
        self.step = None

    @torch.inference_mode()
    def __call__(self, ids: Sequence[int], max_new_tokens: int = 256) -> list[int]:
        if len(ids) + 1 > self.capacity:
            raise CourseError(f"The prompt has {len(ids)} tokens and the cache {self.capacity} places: make it larger.")
        if self.step is None:
            torch_compile.prepare()
            self.step = torch.compile(self.model.forward, dynamic=False)
        self.cache.reset()
        device, eos = self.model.device, eos_tokens(self.model)
        logits = self.model(torch.tensor([ids], device=device), past_key_values=self.cache, logits_to_keep=1).logits
        written = [int(logits[0, -1].argmax())]
        while written[-1] not in eos and len(written) < max_new_tokens:
            if len(ids) + len(written) > self.capacity:
                raise CourseError(
                    f"The cache's {self.capacity} places are full before the answer's end: make it larger."
                )
            at = torch.tensor([[len(ids) + len(written) - 1]], device=device)
            feed = torch.tensor([written[-1:]], device=device)
            logits = self.step(input_ids=feed, position_ids=at, past_key_values=self.cache).logits
            written.append(int(logits[0, -1].argmax()))
        return written
