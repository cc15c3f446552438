"""A tiny model that an exercise's loop is tried on: it refuses to read a token twice (exercise 00.1)."""

from __future__ import annotations

import torch
from torch import nn


class Watched(nn.Module):
    """A random Llama of two layers in float64. A step after the first has to read one token and to come with a cache
    that holds all before it; whatever else comes is refused in a sentence."""

    def __init__(self, seed: int = 0, eos: tuple[int, ...] = ()):
        super().__init__()
        from helpers import models

        self.model = models.shape_only("llama-tiny", torch.float64, seed=seed)
        with torch.no_grad():
            for parameter in self.model.parameters():  # so far apart that it does not write one token for ever
                parameter.mul_(8 if parameter.ndim == 2 else 1)
        self.config, self.generation_config, self.device = (
            self.model.config,
            self.model.generation_config,
            self.model.device,
        )
        self.generation_config.eos_token_id = list(eos) or None
        self.made_from, self.read = (seed, eos), 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Watched) and self.made_from == other.made_from

    __hash__ = nn.Module.__hash__

    @torch.inference_mode()
    def forward(self, input_ids: torch.Tensor, past_key_values=None, **more):
        """transformers' own, for one sequence."""
        if input_ids.ndim != 2 or len(input_ids) != 1:
            raise ValueError(f"input_ids has the shape {tuple(input_ids.shape)}, and the model wants (1, tokens)")
        n, held = input_ids.shape[1], 0 if past_key_values is None else past_key_values.get_seq_length()
        if self.read and past_key_values is None:
            raise ValueError("this step comes without a cache: give the model past_key_values=cache each time")
        if self.read and not held:
            raise ValueError("the cache of this step is empty: make it once, before the loop")
        if self.read and n > 1:
            raise ValueError(f"this step reads {n} tokens, and the cache holds {held} already: read only the newest")
        self.read += n
        return self.model(input_ids=input_ids, past_key_values=past_key_values, **more)
