"""The engine in a thread of its own, for callers that wait in an event loop: one step after the other, for everybody.

Only this thread touches the engine. Requests come in by a queue; tokens go out as they are written.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from helpers.decoding.sampling import GREEDY, Sampling
from helpers.decoding.sequence import Sequence
from helpers.decoding.streaming import Detokenizer
from helpers.engine.engine import Engine
from helpers.errors import CourseError


class BusyError(CourseError):
    """More requests wait than the server takes."""


class Token(NamedTuple):
    """A token as it is told: its text is what became certain with it, so it may be empty, or hold an earlier one's."""

    id: int
    text: str
    log_prob: float


@dataclass(frozen=True)
class Wanted:
    """What a request asks for."""

    prompt: list[int]
    max_new_tokens: int = 256
    sampling: Sampling = GREEDY
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


class _Pieces(Detokenizer):
    """Keeps the text that each token made certain."""

    def __init__(self, tokenizer, stop: Iterable[str]):
        super().__init__(tokenizer, tuple(stop))
        self.pieces: list[str] = []

    def push(self, tokens) -> str:
        piece = super().push(tokens)
        self.pieces.append(piece)
        return piece


class Answer:
    """An answer that is being written: `async for token in answer`, then `finish_reason` and `text`."""

    def __init__(self, wanted: Wanted, tokenizer, loop: asyncio.AbstractEventLoop):
        self.wanted, self.text = wanted, ""
        self.tokens: list[Token] = []
        self.finish_reason: str | None = None
        self.sequence: Sequence | None = None
        self._loop, self._events = loop, asyncio.Queue()
        self._detokenizer, self._told = _Pieces(tokenizer, wanted.stop), 0

    def __aiter__(self) -> AsyncIterator[Token]:
        return self

    async def __anext__(self) -> Token:
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        if event is None:
            raise StopAsyncIteration
        self.tokens.append(event)
        self.text += event.text
        return event

    def _tell(self, event: Token | Exception | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody listens any more
            pass

    def start(self, engine: Engine) -> None:
        """In the engine's thread: queue it; what can't be written is told at once."""
        wanted = self.wanted
        options = dict(max_new_tokens=wanted.max_new_tokens, sampling=wanted.sampling, detokenizer=self._detokenizer)
        try:
            self.sequence = engine.add(wanted.prompt, eos=() if wanted.ignore_eos else None, **options)
        except CourseError as error:
            self._tell(error)

    def go_on(self, emitted: Iterable[int], log_probs: Iterable[float]) -> None:
        """In the engine's thread: tell what a step has written."""
        written, done = list(zip(emitted, log_probs, strict=True)), self.sequence.finish_reason
        for place, (token, log_prob) in enumerate(written):
            pieces = self._detokenizer.pieces[self._told :]
            text = pieces[0] if pieces else ""  # the end of sequence has none
            self._told += bool(pieces)
            if done and place == len(written) - 1:
                text += self._detokenizer.finish()
            self._tell(Token(token, text, log_prob))
        if done:
            self.finish_reason = done
            self._tell(None)


class Worker:
    """`submit` requests; `stop` ends the thread when all that came before are answered."""

    def __init__(self, engine: Engine, tokenizer, max_waiting: int = 128):
        self.engine, self.tokenizer, self.max_waiting = engine, tokenizer, max_waiting
        self._commands: queue.SimpleQueue = queue.SimpleQueue()
        self._answers: dict[int, Answer] = {}  # by the sequence's id
        self._open = 0
        self._lock = threading.Lock()
        self._stopping = False
        self.steps = self.tokens_written = self.requests = 0
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """Requests that wait or are answered."""
        return self._open

    def submit(self, wanted: Wanted) -> Answer:
        """In the event loop: an answer that begins to be written.

        Raises:
            BusyError: too many wait already, or the server is stopping.
        """
        with self._lock:
            if self._stopping:
                raise BusyError("The server is stopping: send the request to another one.")
            if self._open >= self.max_waiting:
                raise BusyError(f"{self._open} requests wait already: try again in a second.")
            self._open += 1
            self.requests += 1
        answer = Answer(wanted, self.tokenizer, asyncio.get_running_loop())
        self._commands.put((answer.start, answer))
        return answer

    def cancel(self, answer: Answer) -> None:
        """Nobody wants it any more; its blocks are free. An answer that is whole stays as it is."""
        if answer.finish_reason is None:
            self._commands.put((self._cancel, answer))

    def stop(self) -> None:
        """Refuse what comes, finish what is there."""
        with self._lock:
            self._stopping = True
        self._commands.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            while not self._commands.empty() or not self.engine.busy:
                command = self._commands.get()
                if command is None:
                    if not self.engine.busy and self._commands.empty():
                        return
                    self._commands.put(None)
                    break
                self._do(*command)
            self._step()

    def _do(self, act, answer: Answer) -> None:
        if act == self._cancel:
            return self._cancel(answer)
        answer.start(self.engine)
        if answer.sequence is None:
            self._leave()
        else:
            self._answers[answer.sequence.id] = answer

    def _cancel(self, answer: Answer) -> None:
        if answer.sequence is not None and self._answers.pop(answer.sequence.id, None):
            self.engine.cancel(answer.sequence)
            answer.finish_reason = "cancelled"
            answer._tell(None)
            self._leave()

    def _step(self) -> None:
        try:
            progress = self.engine.step()
        except Exception as error:  # a step that fails must not leave everybody waiting
            for answer in self._answers.values():
                self.engine.cancel(answer.sequence)
                answer._tell(error)
                self._leave()
            self._answers.clear()
            return
        self.steps += 1
        for sequence, _, verified in progress:
            answer = self._answers[sequence.id]
            if verified.emitted:
                answer.go_on(verified.emitted, verified.log_probs)
                self.tokens_written += len(verified.emitted)
            if sequence.finish_reason:
                del self._answers[sequence.id]
                self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._open -= 1
