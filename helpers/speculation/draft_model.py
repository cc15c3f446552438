"""Speculative decoding: a small model drafts tokens, the large one checks them all in one step (notebook 07).

Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2023; Chen et al., "Accelerating Large
Language Model Decoding with Speculative Sampling", 2023. Greedy: keep the guesses up to the first that the target would
not have made. Sampled: keep a guess x with probability min(1, p(x) / q(x)), else draw from what is left of p; then
every token has the target's own distribution p, however bad the draft's q.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from helpers.decoding.forward import Decoder, eos_tokens
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.proposals import Proposal, chain
from helpers.decoding.sampling import GREEDY, Sampling, draw, probabilities
from helpers.errors import CourseError


def agreed(guesses: Sequence[int], own: Sequence[int]) -> int:
    """How many guesses stand before the first that is not the model's own choice."""
    return next((n for n, guess in enumerate(guesses) if guess != own[n]), len(guesses))


@torch.inference_mode()
def plain_speculative(
    model, tokens: Sequence[int], guess: Callable[[list[int]], list[int]], most: int = 256
) -> list[int]:
    """All there is to greedy speculative decoding, with nothing clever: `guess(known)` says what may come next."""
    cache, known, guesses = KVCache.for_model(model, 2 * (len(tokens) + most)), list(tokens), []
    while len(known) < len(tokens) + most:
        feed = [*known[cache.length :], *guesses]  # what is certain and not read yet, and the guesses
        logits = model(input_ids=torch.tensor([feed], device=model.device), past_key_values=cache).logits[0]
        own = logits[-len(guesses) - 1 :].argmax(-1).tolist()  # the model's choice before and after each guess
        kept = agreed(guesses, own)
        cache.cut(len(known) + kept)  # wrong guesses are forgotten
        for token in own[: kept + 1]:  # the guesses that were right, and one of the model's own
            known.append(token)
            if token in eos_tokens(model) or len(known) == len(tokens) + most:
                return known[len(tokens) :]
        guesses = guess(known)
    return known[len(tokens) :]


class DraftModel:
    """Proposes what a smaller model of the same vocabulary would say, `count` tokens ahead.

    It has a cache of its own, cut back to what became certain. Greedy by default; with the target's `sampling` its
    guesses are drawn, and carry the distributions that they were drawn from. `least` stops a draft early, after a guess
    that the draft itself gives less probability.
    """

    wants_hidden = False

    def __init__(self, draft, target=None, *, count: int = 4, sampling: Sampling = GREEDY, least: float = 0.0):
        if count < 1:
            raise CourseError("A draft model guesses at least one token: give count >= 1.")
        if target is not None and draft.config.vocab_size != target.config.vocab_size:
            raise CourseError(
                f"The draft knows {draft.config.vocab_size} tokens and the target {target.config.vocab_size}: "
                "both must have the same tokenizer."
            )
        self.decoder, self.count, self.sampling, self.least = Decoder(draft), count, sampling, least
        self.generator = torch.Generator().manual_seed(sampling.seed + 1)  # not the target's own draws
        self.cache, self.read = None, []

    def propose(self, tokens: Sequence[int], hidden: torch.Tensor | None = None) -> Proposal:
        logits = self._catch_up(list(tokens))
        guesses, drawn_from = [], []
        while True:
            if self.sampling.temperature == 0:
                guesses.append(int(logits.argmax()))
            else:
                drawn_from.append(probabilities(logits, self.sampling))
                guesses.append(draw(drawn_from[-1], self.generator))
            sure = not self.least or logits.float().softmax(-1)[guesses[-1]] >= self.least
            if len(guesses) == self.count or not sure:
                break
            logits = self._step(guesses[-1:])
        return chain(guesses, "draft", torch.stack(drawn_from) if drawn_from else None)

    def _catch_up(self, tokens: list[int]) -> torch.Tensor:
        """Read what is certain and not in the cache yet, forget guesses that came to nothing; the last logits."""
        same = 0
        while same < min(len(self.read), len(tokens) - 1) and self.read[same] == tokens[same]:
            same += 1
        needed = len(tokens) + self.count
        if self.cache is None or needed > self.cache.layers[0].capacity:
            self.cache, same = KVCache.for_model(self.decoder.model, max(512, 2 * needed)), 0
        if self.read and self.cache.lengths:
            self.cache.cut(same)
        self.read = self.read[:same]
        return self._step(tokens[same:])

    def _step(self, tokens: list[int]) -> torch.Tensor:
        logits, _ = self.decoder.step(tokens, self.cache, last_only=True)
        self.read += tokens
        return logits[-1]
