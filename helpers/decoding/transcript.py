"""An answer step by step: what each run of the model made certain, who had guessed it, and which guesses were wrong."""

from __future__ import annotations

from helpers.decoding.completion import Completion, Step

OWN = "·"  # marks the model's own token


def transcript(completion: Completion, tokenizer) -> list[str]:
    """A line for each step: accepted tokens with their guesser in brackets, the model's own with a dot, then the wrong
    guesses struck through."""
    lines = []
    for number, step in enumerate(completion.steps):
        emitted, rejected = judged(step)
        kept = " ".join(f"{tokenizer.decode([t])!r}{f'[{guesser}]' if guesser else OWN}" for t, guesser in emitted)
        lines.append(f"step {number:2}: {kept}" + (f"  {struck(tokenizer.decode(rejected))}" if rejected else ""))
    return lines


def judged(step: Step) -> tuple[list[tuple[int, str | None]], list[int]]:
    """(the tokens that a step made certain, each with its guesser, None for the model itself; the rejected guesses)."""
    guessers = [*(step.proposal.proposers[i] for i in step.accepted), None]
    ended = len(step.emitted) == len(step.accepted)  # by an accepted guess: what stood behind it was not judged
    rejected = [] if ended else [t for i, t in enumerate(step.proposal.tokens) if i not in step.accepted]
    return list(zip(step.emitted, guessers)), rejected


def struck(text: str) -> str:
    """The text crossed out, by Unicode's combining stroke."""
    return "".join(letter + "\u0336" for letter in text)
