"""One request's state: what is known of it, how much of that the cache holds, and what is guessed next.

`feed()` is what the model has to read, whatever happened before: the prompt, the next part of it, the last token and
its guesses, or everything anew after a preemption. `take(logits, hidden)` is what the model's answer makes of it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch.nn import functional as F

from helpers.decoding.acceptance import accept
from helpers.decoding.feed import Feed
from helpers.decoding.proposals import NOTHING, Proposal, no_deeper
from helpers.decoding.sampling import GREEDY, Sampler, Sampling
from helpers.decoding.streaming import Detokenizer
from helpers.errors import CourseError

_ids = itertools.count(1)


class Verified(NamedTuple):
    """What a step made certain: the accepted guesses (indices into the proposal), and the tokens emitted, with their
    log-probabilities: those guesses and the bonus token, up to the answer's end."""

    accepted: tuple[int, ...]
    emitted: tuple[int, ...]
    log_probs: tuple[float, ...]


class Sequence:
    """A prompt and what was written after it: `known`, of which the cache holds the first `cached` tokens.

    `finish_reason` is None while the answer goes on, then "eos", "stop" (a stop string of the detokenizer's) or
    "length". `prefilling` until the first token is written, and again after a preemption. `hidden` (hidden,) is the
    state that made the last token, at the input of the model's lm_head; `logits` (n, vocabulary) are the last step's,
    after each of its last n tokens `read`, wrong guesses included: a proposer may learn from them.
    """

    def __init__(
        self,
        prompt_ids: Iterable[int],
        *,
        max_new_tokens: int = 256,
        sampling: Sampling = GREEDY,
        eos: Iterable[int] = (),
        detokenizer: Detokenizer | None = None,
    ):
        self.id = next(_ids)
        self.known = list(prompt_ids)
        self.num_prompt_tokens = len(self.known)
        if not self.known:
            raise CourseError("The prompt is empty: give at least one token.")
        if max_new_tokens < 1:
            raise CourseError("max_new_tokens must be at least 1.")
        self.max_new_tokens, self.eos, self.detokenizer = max_new_tokens, frozenset(eos), detokenizer
        self.sampler = Sampler(sampling)
        self.cached, self.prefilling = 0, True
        self.proposal: Proposal = NOTHING
        self.hidden: torch.Tensor | None = None
        self.read: list[int] = []
        self.logits: torch.Tensor | None = None
        self.finish_reason: str | None = None

    @property
    def written(self) -> list[int]:
        """The answer so far."""
        return self.known[self.num_prompt_tokens :]

    @property
    def max_length(self) -> int:
        """Tokens of the prompt and of the longest answer."""
        return self.num_prompt_tokens + self.max_new_tokens

    def feed(self, budget: int | None = None) -> Feed:
        """What is certain and not in the cache yet, and the guesses after it.

        With a `budget` of fewer tokens than are certain, so many of them alone, and nothing is asked of the model
        there; guesses that the budget has no room for are dropped.
        """
        certain = self.known[self.cached :]
        if budget is not None and len(certain) > budget:
            return Feed(self.id, certain[:budget], num_logits=0, start=self.cached)
        if budget is not None and len(certain) + len(self.proposal.tokens) > budget:
            self.proposal = NOTHING
        return Feed(self.id, [*certain, *self.proposal.tokens], self.proposal.parents, start=self.cached)

    def propose(self, proposal: Proposal) -> None:
        """Guesses for the next step; those past the longest answer's end are left out."""
        room = self.max_length - len(self.known) - 1  # the last token is the model's own
        self.proposal = no_deeper(proposal, room) if len(proposal.tokens) > room else proposal

    def take(self, feed: Feed, logits: torch.Tensor, hidden: torch.Tensor) -> Verified:
        """Accept guesses and add the model's own token after them, as far as the answer goes.

        Args:
            feed: what was read. If it ended before the last known token, nothing is made certain.
            logits: (1 + guesses, vocabulary), after the last known token and each guess; hidden: (1 + guesses, hidden).
        """
        if not feed.num_wanted:
            self.cached += len(feed)
            return Verified((), (), ())
        accepted, bonus = accept(self.proposal, logits, self.sampler)
        tokens = self._up_to_the_end([*(self.proposal.tokens[i] for i in accepted), bonus])
        places = [0, *(i + 1 for i in accepted)][: len(tokens)]
        in_order = places[-1] == len(places) - 1
        chosen = logits[: len(places)] if in_order else logits[places]
        losses = F.cross_entropy(chosen, torch.tensor(tokens, device=logits.device), reduction="none")
        accepted = accepted[: len(tokens)]
        self.cached = len(self.known) + len(accepted)
        self.known += tokens
        self.proposal, self.hidden, self.prefilling = NOTHING, hidden[places[-1]], False
        self.read, self.logits = list(feed.tokens[-len(logits) :]), logits
        return Verified(tuple(accepted), tuple(tokens), tuple((-losses).tolist()))

    def preempt(self) -> None:
        """The cache has lost the sequence: everything known will be read again, and nothing else changes."""
        self.cached, self.prefilling, self.proposal = 0, True, NOTHING

    def ahead(self, tokens: Iterable[int]) -> Sequence:
        """The same sequence as it would be if these tokens were certain, too: for proposers that go on from guesses."""
        further = copy.copy(self)
        further.known = [*self.known, *tokens]
        return further

    def _up_to_the_end(self, tokens: list[int]) -> list[int]:
        """The tokens as far as the answer goes; sets the reason if it ends with them."""
        tokens = tokens[: self.max_length - len(self.known)]
        for count, token in enumerate(tokens, 1):
            if token in self.eos:
                self.finish_reason = "eos"
            elif self.detokenizer:
                self.detokenizer.push([token])
                self.finish_reason = "stop" if self.detokenizer.stopped else None
            if self.finish_reason:
                return tokens[:count]
        if len(self.known) + len(tokens) == self.max_length:
            self.finish_reason = "length"
        return tokens
