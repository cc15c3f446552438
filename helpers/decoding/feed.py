"""What one sequence reads in a step: tokens that are certain, then a tree of guesses."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

from helpers.decoding.proposals import depths, is_tree
from helpers.errors import CourseError


@dataclass(frozen=True)
class Feed:
    """`tokens` are certain ones, at least one, and then the guesses, whose `parents` are as in a Proposal.

    The cache keeps what was read under `sequence_id`; `start` is how many tokens it should hold already, where the
    sequence keeps count. `num_logits` is at how many of the last tokens the model's answer is wanted: by default at the
    last certain token and at each guess.
    """

    sequence_id: Hashable
    tokens: Sequence[int]
    parents: Sequence[int] = ()
    num_logits: int | None = None
    start: int | None = None

    def __post_init__(self):
        if self.num_certain < 1 or not is_tree(self.parents):
            raise CourseError("A feed needs a certain token, and for each guess a parent: an earlier guess, or -1.")
        if self.num_wanted > len(self.tokens):
            raise CourseError(f"A feed of {len(self.tokens)} tokens has no {self.num_wanted} logits: ask for fewer.")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def num_certain(self) -> int:
        return len(self.tokens) - len(self.parents)

    @property
    def num_wanted(self) -> int:
        return len(self.parents) + 1 if self.num_logits is None else self.num_logits

    @cached_property
    def position_offsets(self) -> Sequence[int]:
        """How far each token's position lies after the first one's."""
        if not self.parents:
            return range(len(self.tokens))
        last = self.num_certain - 1
        return [*range(self.num_certain), *(last + depth for depth in depths(self.parents))]
