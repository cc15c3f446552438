"""Speculative decoding: a small model drafts tokens, the large one checks them all in one step (notebook 07).

Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2023; Chen et al., "Accelerating Large
Language Model Decoding with Speculative Sampling", 2023. Greedy: keep the guesses up to the first that the target would
not have made. Sampled: keep a guess x with probability min(1, p(x) / q(x)), else draw from what is left of p; then
every token has the target's own distribution p, however bad the draft's q.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from helpers.decoding.feed import Feed
from helpers.decoding.forward import eos_tokens
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.limits import Limits
from helpers.decoding.proposals import Proposal, chain
from helpers.decoding.proposer import Proposer
from helpers.decoding.reading import read
from helpers.decoding.sampling import GREEDY, Sampling, draw, probabilities
from helpers.decoding.sequence import Sequence
from helpers.decoding.support import check_reads_chunks
from helpers.errors import CourseError


def agreed(guesses: list[int], own: list[int]) -> int:
    """How many guesses stand before the first that is not the model's own choice."""
    return next((n for n, guess in enumerate(guesses) if guess != own[n]), len(guesses))


@torch.inference_mode()
def plain_speculative(
    model,
    tokens: list[int],
    guess: Callable[[list[int]], list[int]],
    max_new_tokens: int = 256,
) -> list[int]:
    """All there is to greedy speculative decoding, with nothing clever.

    `guess(known)` says what may come next.
    """
    end = len(tokens) + max_new_tokens
    cache, known, guesses = KVCache.for_model(model, 2 * end), list(tokens), []
    while len(known) < end:
        feed = [*known[cache.length :], *guesses]  # certain and not read yet; guesses
        ids = torch.tensor([feed], device=model.device)
        logits = model(input_ids=ids, past_key_values=cache).logits[0]
        own = logits[-len(guesses) - 1 :].argmax(-1).tolist()  # the model's own choices
        kept = agreed(guesses, own)
        cache.crop(len(known) + kept)  # wrong guesses are forgotten
        for token in own[: kept + 1]:  # guesses that were right, and the bonus token
            known.append(token)
            if token in eos_tokens(model) or len(known) == end:
                return known[len(tokens) :]
        guesses = guess(known)
    return known[len(tokens) :]


class _Draft:
    """What the draft has of one sequence: the tokens that its own cache holds."""

    def __init__(self, model, capacity: int, seed: int):
        self.cache, self.read = KVCache.for_model(model, capacity), []
        self.generator = torch.Generator().manual_seed(seed + 1)  # not the target's own draws

    def crop_to(self, tokens: list[int]) -> list[int]:
        """Forget what the sequence did not become; returns the tokens to read, the last one at least."""
        pairs = enumerate(zip(self.read, tokens[:-1]))
        same = next((n for n, (mine, known) in pairs if mine != known), min(len(self.read), len(tokens) - 1))
        if same < len(self.read):
            self.cache.crop(same)
        self.read = tokens[:same]
        return tokens[same:]


class DraftModel(Proposer):
    """Proposes what a smaller model of the same vocabulary would write, `count` tokens ahead.

    It keeps a cache for each sequence, cropped to what became certain. Greedy by default; with the target's `sampling`
    its guesses are drawn, and carry the distributions that they were drawn from. `min_probability` ends a draft early,
    after a guess that the draft itself gives less. A draft with `token_ids` guesses among these alone
    (models/fewer_tokens.py).
    """

    def __init__(
        self, draft, target=None, *, count: int = 4, sampling: Sampling = GREEDY, min_probability: float = 0.0
    ):
        if count < 1:
            raise CourseError("A draft model guesses at least one token: give count >= 1.")
        if target is not None and draft.config.vocab_size != target.config.vocab_size:
            raise CourseError(
                f"The draft knows {draft.config.vocab_size} tokens and the target {target.config.vocab_size}: "
                "both must have the same tokenizer."
            )
        check_reads_chunks(draft)  # a guess need not be exact beyond that
        self.model, self.window = draft, Limits.of(draft.config.get_text_config()).window
        self.count, self.sampling, self.min_probability = count, sampling, min_probability
        self.token_ids = getattr(draft, "token_ids", None)
        self.drafts: dict[int, _Draft] = {}

    def propose(self, sequences: list[Sequence], hidden: torch.Tensor | None = None) -> list[Proposal]:
        return [self.guess(sequence) for sequence in sequences]

    def guess(self, sequence: Sequence) -> Proposal:
        """A chain of guesses after what is known of the sequence."""
        draft = self.drafts.get(sequence.id)
        if draft is None or len(sequence.known) + self.count > draft.cache.capacity:
            longest = max(sequence.max_length, len(sequence.known)) + self.count
            draft = self.drafts[sequence.id] = _Draft(self.model, longest, self.sampling.seed)
        logits = self._read(draft, draft.crop_to(sequence.known))
        guesses, distributions = [], []
        while True:
            if self.sampling.temperature == 0:
                place = int(logits.argmax())
            else:
                probs = probabilities(logits, self.sampling)
                place = draw(probs, draft.generator)
                distributions.append(self._over_vocabulary(probs))
            guesses.append(place if self.token_ids is None else int(self.token_ids[place]))
            sure = not self.min_probability or logits.float().softmax(-1)[place] >= self.min_probability
            if len(guesses) == self.count or not sure:
                return chain(guesses, "draft", torch.stack(distributions) if distributions else None)
            logits = self._read(draft, guesses[-1:])

    def _over_vocabulary(self, probs: torch.Tensor) -> torch.Tensor:
        """A distribution over the tokens that the draft guesses as one over all of them, (vocabulary,)."""
        if self.token_ids is None:
            return probs
        return probs.new_zeros(self.model.config.vocab_size).scatter(0, self.token_ids, probs)

    def release(self, sequence: Sequence) -> None:
        self.drafts.pop(sequence.id, None)

    def _read(self, draft: _Draft, tokens: list[int]) -> torch.Tensor:
        feeds = [Feed(0, tokens)]
        [reading] = read(self.model, self.window, feeds, draft.cache.begin(feeds), draft.cache)
        draft.read = draft.read + tokens
        return reading.logits[-1]
