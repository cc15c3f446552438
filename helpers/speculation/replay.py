"""Decoding replayed on answers that are known: what guessers would have proposed, and how far each step would have come
(notebook 08).

Guesses change no greedy token, so the answer is the same whoever guesses, and its hidden states are, too. What
guessers say at each position is recorded once; then any tree of their guesses is tried without the model.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from helpers.decoding.proposals import Proposal, depths
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.speculation.node_chances import Position, right_nodes


class KnownAnswer(NamedTuple):
    """Token ids of a prompt and of its greedy answer, and the states (n, hidden) that made each of its n tokens."""

    prompt: list[int]
    tokens: list[int]
    hidden: torch.Tensor


class ReplayedStep(NamedTuple):
    """One decode step: how many guesses it would have checked, and the tokens that it would have emitted."""

    guesses: int
    emitted: int


@torch.inference_mode()
def record(
    guessers: abc.Sequence[Proposer],
    answers: Iterable[KnownAnswer],
    logits_of: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> list[list[Position]]:
    """For each answer what all guessers propose at each position, the first token being known.

    `logits_of` is the model's lm_head, from states (1, hidden) to logits (1, vocabulary), for guessers that learn from
    what the model gives the tokens that it reads.
    """
    recorded = []
    for prompt, tokens, hidden in answers:
        sequence, positions = Sequence(prompt, max_new_tokens=len(tokens) + 1), []
        for i in range(len(tokens) - 1):
            sequence.known = [*prompt, *tokens[: i + 1]]
            if logits_of is not None:
                sequence.read, sequence.logits = sequence.known[-2:-1], logits_of(hidden[i : i + 1])
            proposals = [guesser.propose([sequence], hidden[i : i + 1])[0] for guesser in guessers]
            positions.append(Position(proposals, tokens[i + 1 :]))
        for guesser in guessers:
            guesser.release(sequence)
        recorded.append(positions)
    return recorded


def chosen(recorded: Iterable[Iterable[Position]], places: abc.Sequence[int]) -> list[list[Position]]:
    """The same records with the proposals of these guessers alone, by their places."""
    return [[Position([p.proposals[i] for i in places], p.following) for p in answer] for answer in recorded]


def replay(
    recorded: Iterable[abc.Sequence[Position]], tree: Callable[[abc.Sequence[Proposal]], Proposal]
) -> list[list[ReplayedStep]]:
    """The steps of each answer, where `tree` makes one proposal of all guessers'."""
    answers = []
    for positions in recorded:
        at, steps = 0, []
        while at < len(positions):
            proposal = tree(positions[at].proposals)
            by_node = depths(proposal.parents)
            depth = max((by_node[i] for i in right_nodes(proposal, positions[at].following)), default=0)
            steps.append(ReplayedStep(len(proposal.tokens), min(1 + depth, len(positions) - at)))
            at += 1 + depth
        answers.append(steps)
    return answers


def mean_emitted(answers: Iterable[Iterable[ReplayedStep]]) -> float:
    """Tokens a step, over the steps of all answers."""
    emitted = [step.emitted for steps in answers for step in steps]
    return sum(emitted) / max(1, len(emitted))
