"""An answer step by step: what each run of the model made certain, who had guessed it, and which guesses were wrong."""

from __future__ import annotations

from helpers.decoding.completion import Completion, Step

OWN = "·"  # marks the model's own token


def transcript(completion: Completion, tokenizer) -> list[str]:
    """A line for each step: accepted tokens with their guesser in brackets, the model's own with a dot, then the wrong
    guesses behind a cross."""
    lines = []
    for number, step in enumerate(completion.steps):
        emitted, rejected = judged(step)
        kept = " ".join(f"{tokenizer.decode([t])!r}{f'[{guesser}]' if guesser else OWN}" for t, guesser in emitted)
        lines.append(f"step {number:2}: {kept}" + (f"  {crossed(tokenizer.decode(rejected))}" if rejected else ""))
    return lines


def judged(step: Step) -> tuple[list[tuple[int, str | None]], list[int]]:
    """(the tokens that a step made certain, each with its guesser, None for the model itself; the rejected guesses)."""
    guessers = [*(step.proposal.proposers[i] for i in step.accepted), None]
    ended = len(step.emitted) == len(step.accepted)  # by an accepted guess: what stood behind it was not judged
    rejected = [] if ended else [t for i, t in enumerate(step.proposal.tokens) if i not in step.accepted]
    return list(zip(step.emitted, guessers)), rejected


def crossed(text: str) -> str:
    """A rejected text: a cross before it, and it stays readable."""
    return f"× {text!r}"
