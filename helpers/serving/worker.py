"""The engine in a thread of its own, for callers that wait in an event loop: one step after the other, for everybody.

Only this thread touches the engine. Requests come in by a queue; tokens go out as they are written.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import torch

from helpers.decoding.sampling import GREEDY, Sampling
from helpers.decoding.sequence import Sequence
from helpers.decoding.streaming import Detokenizer
from helpers.engine.engine import Engine
from helpers.errors import CourseError
from helpers.kernels.openmp_team import release_team

log = logging.getLogger(__name__)


class BusyError(CourseError):
    """More requests are open than the server takes."""


class StoppedError(CourseError):
    """The server ends, or its engine has stopped."""


class StepFailedError(CourseError):
    """A step of the engine failed; who ran or waited gets no answer."""


class Token(NamedTuple):
    """A token as it is told. Its text is what became certain with it: it may be empty, or hold an earlier one's."""

    id: int
    text: str
    log_prob: float
    last: bool


@dataclass(frozen=True)
class Wanted:
    """What a request asks for; with `top` so many of the likeliest tokens at its end, too; with `adapter` by that one
    of the server's adapters."""

    prompt: list[int]
    max_new_tokens: int = 256
    sampling: Sampling = GREEDY
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    top: int = 0
    adapter: str | None = None


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
    """An answer that is being written: `async for token in answer`, then `finish_reason`, `tokens`, `text` and `top`.

    The methods below `start` are the engine's thread's.
    """

    def __init__(self, wanted: Wanted, tokenizer, loop: asyncio.AbstractEventLoop):
        self.wanted, self.text = wanted, ""
        self.tokens: list[Token] = []
        self.top: list[tuple[int, float]] = []  # tokens and their log-probabilities, the likeliest first
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

    def start(self, engine: Engine) -> None:
        """Queue it."""
        wanted = self.wanted
        options = dict(max_new_tokens=wanted.max_new_tokens, sampling=wanted.sampling, detokenizer=self._detokenizer)
        self.sequence = engine.add(wanted.prompt, eos=() if wanted.ignore_eos else None, **options)

    def go_on(self, emitted: Iterable[int], log_probs: Iterable[float]) -> None:
        """Tell what a step has written."""
        written, reason, rest = list(zip(emitted, log_probs, strict=True)), self.sequence.finish_reason, ""
        if reason and self.wanted.top:
            log_probs = torch.log_softmax(self.sequence.logits[-1].float(), -1)
            values, tokens = log_probs.topk(min(self.wanted.top, len(log_probs)))
            self.top = list(zip(tokens.tolist(), values.tolist(), strict=True))
        if reason:
            rest = self._detokenizer.finish()
            if self._detokenizer.stopped:  # with the end a stop string may become certain
                reason = "stop"
        for place, (token, log_prob) in enumerate(written):
            pieces = self._detokenizer.pieces[self._told :]
            self._told += bool(pieces)
            last = bool(reason) and place == len(written) - 1
            text = (pieces[0] if pieces else "") + (rest if last else "")  # an end of sequence has no piece
            if last:
                self.finish_reason = reason
            self.tell(Token(token, text, log_prob, last))
        if reason:
            self.tell(None)

    def tell(self, event: Token | Exception | None) -> None:
        """To whoever reads it; None is the end."""
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class Worker:
    """`submit` requests; `stop` ends the thread when all that came before are answered.

    Only one thread should compute at a time: the others' idle teams would slow its barriers (openmp_team.py).
    """

    def __init__(self, engine: Engine, tokenizer, max_open: int = 128, longest: int | None = None):
        self.engine, self.tokenizer, self.max_open = engine, tokenizer, max_open
        self.longest = min(longest or _room(engine), _room(engine))
        self.adapters = tuple(getattr(engine.forward, "names", ()))
        self.steps = self.tokens_written = self.requests = 0
        self._commands: queue.SimpleQueue = queue.SimpleQueue()
        self._answers: dict[int, Answer] = {}  # by the sequence's id
        self._open, self._stopping, self._lock = 0, False, threading.Lock()
        release_team()  # of whoever has loaded the model
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """Requests that wait or are answered."""
        return self._open

    @property
    def alive(self) -> bool:
        """Whether requests are taken."""
        return self._thread.is_alive() and not self._stopping

    def submit(self, wanted: Wanted, admitted: bool = False) -> Answer:
        """In the event loop: an answer that begins to be written; `admitted` is what goes on with an accepted one.

        Raises:
            BusyError: too many are open; StoppedError: the server ends; CourseError: it would be too long.
        """
        self.check_length(len(wanted.prompt), wanted.max_new_tokens)
        answer = Answer(wanted, self.tokenizer, asyncio.get_running_loop())
        with self._lock:
            if not self.alive:
                raise StoppedError("The server is stopping: send the request to another one.")
            if self._open >= self.max_open and not admitted:
                raise BusyError(f"As many requests are open as this server takes, {self.max_open}: try again later.")
            self._open += 1
            self.requests += 1
            self._commands.put((self._start, answer))
        return answer

    def check_length(self, prompt: int, answer: int) -> None:
        """Refuse what would be too long in all, in tokens."""
        if prompt + answer > self.longest:
            raise CourseError(
                f"The prompt has {prompt} tokens and the answer may have {answer}: together this server takes "
                f"{self.longest}."
            )

    def cancel(self, answer: Answer) -> None:
        """Nobody wants it any more; its blocks are free. An answer that is whole stays as it is."""
        if answer.finish_reason is None:
            self._commands.put((self._cancel, answer))

    def stop(self) -> None:
        """Refuse what comes, finish what is there."""
        with self._lock:
            self._stopping = True
            self._commands.put((None, None))
        self._thread.join()

    def _work(self) -> None:
        stopping = False
        while not stopping or self.engine.busy or not self._commands.empty():
            while not self._commands.empty() or not (self.engine.busy or stopping):
                if self._commands.empty():
                    release_team()
                act, answer = self._commands.get()
                if act is None:
                    stopping = True
                else:
                    self._guarded(act, answer)
            if self.engine.busy:
                self._guarded(self._step)
        release_team()

    def _guarded(self, act: Callable, *arguments) -> None:
        """Whatever happens, nobody is left waiting, and the next one is served."""
        try:
            act(*arguments)
        except Exception:
            log.exception("a step of the engine failed")
            self.engine.abort()
            for answer in list(self._answers.values()):
                self._leave(answer, StepFailedError("The server's engine failed at this step: send the request again."))

    def _start(self, answer: Answer) -> None:
        try:
            answer.start(self.engine)
        except Exception as reason:  # it can't be written; the others go on
            return self._leave(answer, reason)
        self._answers[answer.sequence.id] = answer
        if answer.wanted.adapter:
            self.engine.forward.adapter_of[answer.sequence.id] = answer.wanted.adapter

    def _cancel(self, answer: Answer) -> None:
        if answer.sequence is not None and answer.sequence.id in self._answers:
            self.engine.cancel(answer.sequence)
            answer.finish_reason = "cancelled"
            self._leave(answer, None)

    def _step(self) -> None:
        progress = self.engine.step()
        self.steps += 1
        for sequence, _, verified in progress:
            answer = self._answers[sequence.id]
            if verified.emitted:
                answer.go_on(verified.emitted, verified.log_probs)
                self.tokens_written += len(verified.emitted)
            if sequence.finish_reason:
                self._close(answer)

    def _leave(self, answer: Answer, event: Exception | None) -> None:
        self._close(answer)
        answer.tell(event)

    def _close(self, answer: Answer) -> None:
        if answer.sequence is not None:
            self._answers.pop(answer.sequence.id, None)
            if self.adapters:
                self.engine.forward.adapter_of.pop(answer.sequence.id, None)
        with self._lock:
            self._open -= 1


def _room(engine: Engine) -> int:
    """Tokens that the model knows positions for, and that all blocks together hold."""
    config = engine.forward.model.config.get_text_config()
    return min(config.max_position_embeddings, engine.cache.num_blocks * engine.cache.block_size)
