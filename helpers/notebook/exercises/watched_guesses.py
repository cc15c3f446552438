"""A guesser and a tiny model that a speculative loop is tried on (exercise 07.1).

They refuse a step that wastes guesses, one that finds wrong guesses in the cache, and one that reads tokens again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from helpers.notebook.exercises.watched_model import Watched


class Guesser:
    """Knows the answer, and guesses `count` tokens of it.

    The guess at place `wrong` is not as it should be, and the one behind it is `after_wrong`, if given: for each place
    of the answer what the model would say after the wrong token. With `empty` it has no guess every other time.
    """

    def __init__(
        self,
        answer: Sequence[int],
        num_prompt: int,
        count: int,
        wrong: int | None = None,
        after_wrong: Sequence[int] = (),
        empty: bool = False,
    ):
        self.made_from = (tuple(answer), num_prompt, count, wrong, tuple(after_wrong), empty)
        self.known: list[int] | None = None  # as it was asked the last time
        self.guesses: list[int] = []
        self.num_read, self.turns = 0, 0  # guesses that the model then read

    def __call__(self, known: list[int]) -> list[int]:
        answer, num_prompt, count, wrong, after_wrong, empty = self.made_from
        self._check_growth(known)
        done, self.turns = len(known) - num_prompt, self.turns + 1
        guesses = list(answer[done : done + count])
        if wrong is not None and wrong < len(guesses):
            guesses[wrong] = wrong_token(guesses[wrong])
            guesses[wrong + 1 : wrong + 2] = after_wrong[done : done + 1]
        self.known, self.guesses, self.num_read = list(known), [] if empty and self.turns % 2 else guesses, 0
        return list(self.guesses)

    def _check_growth(self, known: list[int]) -> None:
        answer, num_prompt = self.made_from[:2]
        if self.known is None or not isinstance(known, list):
            return
        written = known[num_prompt:]
        stray = next((n for n, pair in enumerate(zip(written, answer)) if pair[0] != pair[1]), None)
        if stray is not None:
            raise ValueError(
                f"known has {written[stray]} as token {stray + 1} of the answer, and the model's own there is "
                f"{answer[stray]}: guesses are kept up to the first that differs from it"
            )
        done = len(self.known) - num_prompt
        read = self.guesses[: self.num_read]
        right = next((n for n, guess in enumerate(read) if guess != answer[done + n]), len(read))
        if len(known) - len(self.known) < right + 1:
            raise ValueError(
                f"{right} of the {len(read)} guesses of that step were right, so it brings {right + 1} tokens with the "
                f"bonus token; known has grown by {len(known) - len(self.known)}"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Guesser) and self.made_from == other.made_from

    __hash__ = None


def wrong_token(token: int) -> int:
    """Another token than this one."""
    return (token + 1) % 97


class WatchedGuesses(Watched):
    """As Watched, for a loop that guesses: what it reads must be, with what the cache holds, the known tokens and the
    guesses after them, and nothing of it a second time."""

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
        if self.text and self.guesser.known is None:
            raise ValueError("nobody was asked for guesses before this step: guesses = guess(known)")
        if self.guesser.known is not None:
            self._check(held, read)
        self.text = self.text[:held] + read
        return self.model(input_ids=input_ids, past_key_values=past_key_values, **more)

    def _check(self, held: int, read: list[int]) -> None:
        known, guesses = self.guesser.known, self.guesser.guesses
        pairs = zip(self.text, known[:-1])
        of_use = next((n for n, (mine, certain) in enumerate(pairs) if mine != certain), len(known) - 1)
        of_use = min(of_use, len(self.text))
        if held > of_use:
            raise ValueError(
                f"the cache holds {held} tokens, and only {of_use} of them are certain and not to be read again: crop "
                "it to the tokens known before the step and the guesses kept"
            )
        if held < of_use:
            again = of_use - held
            raise ValueError(f"{again} token{'s' * (again > 1)} read a second time: the cache was cropped too far")
        whole = self.text[:held] + read
        if guesses and whole == known:
            raise ValueError("this step reads no guesses: they come after what is certain, in the same step")
        if len(whole) < len(known) or whole != (known + guesses)[: len(whole)]:
            raise ValueError(
                f"this step reads {read}, and it should read {known[held:]}, which is certain and not in the cache "
                f"yet, and then the guesses {guesses}"
            )
        self.guesser.num_read = len(whole) - len(known)
