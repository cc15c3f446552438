"""A guesser and a tiny model that a speculative loop is tried on: the model refuses a step that wastes guesses, and one
after which wrong guesses are still in the cache (exercise 07.1)."""

from __future__ import annotations

import torch

from helpers.notebook.exercises.watched_model import Watched


class Guesser:
    """Knows the answer, and guesses `count` tokens of it, the one at place `wrong` not as it should be; with an `empty`
    turn every other time it has no guess. It keeps what it was asked, and what it said."""

    def __init__(self, answer: list[int], num_prompt: int, count: int, wrong: int | None = None, empty: bool = False):
        self.made_from = (tuple(answer), num_prompt, count, wrong, empty)
        self.known: list[int] | None = None  # as it was asked the last time
        self.guesses: list[int] = []
        self.turns = 0

    def __call__(self, known: list[int]) -> list[int]:
        answer, num_prompt, count, wrong, empty = self.made_from
        done, self.turns = len(known) - num_prompt, self.turns + 1
        guesses = list(answer[done : done + count])
        if wrong is not None and wrong < len(guesses):
            guesses[wrong] = (guesses[wrong] + 1) % 97
        if empty and self.turns % 2:
            guesses = []
        self.known, self.guesses = list(known), guesses
        return list(guesses)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Guesser) and self.made_from == other.made_from

    __hash__ = None


class WatchedGuesses(Watched):
    """As Watched, for a loop that guesses: what it reads must be, with what the cache holds, the known tokens and all
    the guesses, and nothing else."""

    def __init__(self, guesser: Guesser, seed: int = 0, eos: tuple[int, ...] = ()):
        super().__init__(seed, eos)
        self.guesser, self.text = guesser, []

    @torch.inference_mode()
    def forward(self, input_ids: torch.Tensor, past_key_values=None, **more):
        """transformers' own, for one sequence."""
        if input_ids.ndim != 2 or len(input_ids) != 1:
            raise ValueError(f"input_ids has the shape {tuple(input_ids.shape)}, and the model wants (1, tokens)")
        if past_key_values is None:
            raise ValueError("this step comes without a cache: give the model past_key_values=cache each time")
        held, read = past_key_values.get_seq_length(), input_ids[0].tolist()
        if self.text and not held:
            raise ValueError("the cache of this step is empty: make it once, before the loop")
        self._check(self.text[:held], read)
        self.text = self.text[:held] + read
        return self.model(input_ids=input_ids, past_key_values=past_key_values, **more)

    def _check(self, held: list[int], read: list[int]) -> None:
        known, guesses = self.guesser.known, self.guesser.guesses
        if known is None:  # the first step, of a loop that has not asked for guesses yet
            return
        if len(held) >= len(known) or held != known[: len(held)]:
            raise ValueError(
                f"the cache holds {len(held)} tokens, not all of them are certain and read before: crop it to the "
                "tokens known before the step and the guesses kept"
            )
        if guesses and held + read == known:
            raise ValueError("this step reads no guesses: they come after what is certain, in the same step")
        if held + read != known + guesses:
            raise ValueError(
                f"this step reads {read}, and it should read {known[len(held) :]}, which is certain and not in the "
                f"cache yet, and then the guesses {guesses}"
            )
