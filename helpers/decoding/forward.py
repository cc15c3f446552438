"""One run of the model over the tokens that sequences feed it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from helpers.decoding.kv_cache import KVCache
from helpers.decoding.masks import additive, depths, rows_mask, tree_bias, tree_mask
from helpers.errors import CourseError


class Decoder:
    """One model and what its runs need: `step(tokens, ...)` reads tokens into the cache and gives logits and hidden."""

    def __init__(self, model, keep_hidden: bool = False):
        self.model, self.keep_hidden = model, keep_hidden
        self.device, self.dtype = model.device, model.dtype
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        self.window = getattr(config, "sliding_window", None) if kinds != {"full_attention"} else None
        self.mixed = len(kinds) > 1

    def mask(self, seen: torch.Tensor) -> torch.Tensor:
        """The mask of what is seen, as this model takes it."""
        if self.mixed and self.window and seen.shape[-1] > self.window:
            mixes = f"This model mixes windows of {self.window} tokens with full attention"
            raise CourseError(f"{mixes}: past the window it takes no guesses and no batches.")
        return additive(seen, self.dtype).to(self.device)

    def step(self, tokens: Sequence[int], cache: KVCache, parents: Sequence[int] = (), last_only: bool = False):
        """Run the model on `tokens` (a chain, or one certain token and its tree of guesses).

        Returns:
            logits (n, vocabulary), in float32 at least, and hidden states (n, hidden) or None; n is 1 with `last_only`.
        """
        before = cache.length
        ids = torch.tensor([tokens], device=self.device)
        offsets = [0, *depths(parents)] if parents else range(len(tokens))
        positions = torch.tensor([[before + k for k in offsets]], device=self.device)
        if not parents:
            mask = None
        elif self.window:
            mask = self.mask(tree_mask(parents, before, self.window))
        else:
            mask = tree_bias(parents, before, self.dtype, self.device)
        out = self.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True,
            logits_to_keep=1 if last_only else 0, output_hidden_states=self.keep_hidden,
        )  # fmt: skip
        hidden = out.hidden_states[-1][0, -len(out.logits[0]) :] if self.keep_hidden else None
        return out.logits[0].to(torch.promote_types(self.dtype, torch.float32)), hidden

    def batch(self, tokens: Sequence[Sequence[int]], cache: KVCache) -> list[torch.Tensor]:
        """Run the model on rows that may hold, and read, different numbers of tokens (each at least one).

        The cache needs room for the longest row plus the most tokens read.

        Returns:
            for each row its logits (tokens read, vocabulary).
        """
        before = cache.lengths or [0] * len(tokens)
        if len(before) != len(tokens):
            raise CourseError(f"The cache holds {len(before)} rows and {len(tokens)} were given: give tokens for each.")
        most = max(map(len, tokens))
        ids = torch.tensor([[*row, *[0] * (most - len(row))] for row in tokens], device=self.device)
        positions = torch.tensor(before, device=self.device)[:, None] + torch.arange(most, device=self.device)
        together = most == 1 and min(before) == max(before) and not self.window  # nothing to hide from anybody
        mask = None if together else self.mask(rows_mask(before, most, self.window))
        out = self.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        )
        for row, (held, read) in enumerate(zip(before, tokens, strict=True)):
            cache.cut(held + len(read), row)  # what filled up the shorter rows is forgotten
        return [logits[: len(read)] for logits, read in zip(out.logits, tokens, strict=True)]


def eos_tokens(model) -> list[int]:
    """The model's end-of-sequence tokens."""
    found = model.generation_config.eos_token_id
    return [] if found is None else [found] if isinstance(found, int) else list(found)
