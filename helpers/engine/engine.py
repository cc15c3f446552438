"""The loop for many users: schedule, read, verify, and who is done leaves. The second caller of the decoder's parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward, eos_tokens
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence, Verified
from helpers.engine.paged_cache import BLOCK, PagedCache
from helpers.engine.scheduler import Batch, Scheduler
from helpers.errors import CourseError


class Progress(NamedTuple):
    """What a step did for one sequence."""

    sequence: Sequence
    feed: Feed
    verified: Verified


class Engine:
    """Requests come by `add` and go by `cancel` or by themselves; `step` does the next step of all that run.

    Each request's greedy tokens are those that it gets alone, whatever else comes and goes. `options` are those of
    Scheduler: max_tokens, max_sequences, share_prefixes.
    """

    def __init__(
        self,
        model,
        num_blocks: int,
        *,
        block_size: int = BLOCK,
        proposer: Proposer | None = None,
        scheduler: type[Scheduler] = Scheduler,
        **options,
    ):
        self.forward, self.proposer, self.eos = Forward(model), proposer, eos_tokens(model)
        if trouble := self.forward.support.batches or self.forward.support.guesses:
            raise CourseError(
                f"This model can't be read in batches and chunks ({trouble}): decode one prompt at a time."
            )
        self.cache = PagedCache.for_model(model, num_blocks, block_size)
        self.scheduler = scheduler(self.cache, **options)
        self.reads_feeds = getattr(model, "reads_feeds", False)

    @property
    def busy(self) -> bool:
        """Whether somebody waits or runs."""
        return bool(self.scheduler.waiting or self.scheduler.running)

    def add(self, prompt_ids: Iterable[int], *, eos: Iterable[int] | None = None, **options) -> Sequence:
        """A request; `options` are max_new_tokens, sampling and detokenizer, as of Sequence.

        Raises:
            CourseError: it could never be written to its end.
        """
        sequence = Sequence(prompt_ids, eos=self.eos if eos is None else eos, **options)
        self.forward.check_request(sequence, guesses=self.proposer is not None)
        limits = self.forward.limits
        bounds = [n for n in (limits.dynamic_after, limits.mixed_up_to, limits.switch_after) if n is not None]
        if bounds and sequence.max_length > min(bounds):  # else the step of everybody would fail
            raise CourseError(
                f"In batches and chunks this model is exact up to {min(bounds)} tokens, and this request may become "
                f"{sequence.max_length} tokens long: shorten it."
            )
        self.scheduler.add(sequence)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """Nobody wants its answer any more; a request that is done stays as it is."""
        if not sequence.finish_reason:
            sequence.finish_reason = "cancelled"
            self._leave(sequence)

    def abort(self) -> None:
        """A step has failed: nobody who ran or waited goes on, whatever state it left them in."""
        for sequence in [*self.scheduler.running, *self.scheduler.waiting]:
            sequence.finish_reason = sequence.finish_reason or "cancelled"
            self._leave(sequence)

    @torch.inference_mode()
    def step(self) -> list[Progress]:
        """Everybody's next step; nothing where nobody waits."""
        progress = []
        for batch in self._runs(self.scheduler.schedule()):
            sequences, feeds = zip(*batch)
            readings = self.forward(feeds, self.cache)
            for sequence, feed, reading in zip(sequences, feeds, readings, strict=True):
                verified = sequence.take(feed, *reading)
                before = sequence.cached - len(verified.accepted)
                self.cache.keep(sequence.id, before, verified.accepted)
                progress.append(Progress(sequence, feed, verified))
        went_on = [one.sequence for one in progress]
        for sequence in went_on:
            if sequence.finish_reason:
                self._leave(sequence)
        writing = [one for one in went_on if not (one.finish_reason or one.prefilling)]
        if self.proposer and writing:
            hidden = torch.stack([sequence.hidden for sequence in writing])
            proposals = self.proposer.propose(writing, hidden)
            for sequence, proposal in zip(writing, proposals, strict=True):
                sequence.propose(proposal)
        return progress

    def run(self) -> None:
        """Steps until nobody waits."""
        while self.busy:
            self.step()

    def _runs(self, batch: Batch) -> list[Batch]:
        """A step as runs of the model: one, if it reads feeds of any lengths; else one for those who write, and one for
        each part of a prompt, beside which all others would be filled up."""
        if self.reads_feeds:
            return [batch] if batch else []
        writing = [pair for pair in batch if not pair[0].prefilling]
        return ([writing] if writing else []) + [[pair] for pair in batch if pair[0].prefilling]

    def _leave(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        if self.proposer:
            self.proposer.release(sequence)
