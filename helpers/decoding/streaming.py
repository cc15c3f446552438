"""From token ids to text while they come: half characters and beginnings of stop strings wait until they are certain.

Only the new end is decoded: the tokens of the last piece, for their spaces, and those that came after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from helpers.errors import CourseError

BROKEN = "\ufffd"  # what a decoder writes for half a character


class Detokenizer:
    """`push(tokens)` returns the text that they made certain; `text` is all of it, `stopped` whether a stop string has
    come. Special tokens leave no text."""

    def __init__(self, tokenizer, stop: Sequence[str] = ()):
        if isinstance(stop, str) or "" in stop:
            raise CourseError('Give stop strings as a list, none of them empty: stop=["```"].')
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self.text, self.stopped = "", False
        self._tokens: list[int] = []  # the last piece's, and those that have no certain text yet
        self._shown = 0  # how many of them are the last piece's
        self._held = ""  # decoded, and perhaps the beginning of a stop string

    def push(self, tokens: Sequence[int]) -> str:
        self._tokens += tokens
        before, now = self._decoded(self._shown), self._decoded(len(self._tokens))
        if now.endswith(BROKEN) or len(now) <= len(before):
            return ""
        self._tokens, self._shown = self._tokens[self._shown :], len(self._tokens) - self._shown
        return self._certain(now[len(before) :])

    def finish(self) -> str:
        """What was held back: nothing comes after it any more."""
        before, now = self._decoded(self._shown), self._decoded(len(self._tokens))
        self._tokens, self._shown = [], 0
        piece = self._certain(now[len(before) :])
        rest, self._held = self._held, ""
        self.text += rest
        return piece + rest

    def _decoded(self, count: int) -> str:
        return self.tokenizer.decode(self._tokens[:count], skip_special_tokens=True) if count else ""

    def _certain(self, new: str) -> str:
        """Of what was held and is new: all before a stop string, or all that can't be the beginning of one."""
        text = self._held + new
        ends = [place for s in self.stop if (place := text.find(s)) >= 0]
        if ends:
            piece, self._held, self.stopped = text[: min(ends)], "", True
        else:
            held = max((n for s in self.stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
            piece, self._held = text[: len(text) - held], text[len(text) - held :]
        self.text += piece
        return piece
