"""Answers on their way to a client that may go at any time: then nobody wants them any more (notebook 11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from helpers.errors import CourseError
from helpers.serving.worker import Answer, Wanted, Worker


async def whole(request: Request, worker: Worker, asked: Sequence[Wanted], admitted: bool = False) -> list[Answer]:
    """All answers, written at the same time. ClientDisconnect, and nothing is written on, when the client goes;
    CourseError for more than the server ever takes."""
    if len(asked) > worker.max_open:
        raise CourseError(f"This server takes {worker.max_open} answers at a time: ask for fewer in one request.")
    answers: list[Answer] = []
    try:
        for each in asked:
            answers.append(worker.submit(each, admitted))
        await unless_gone(request, _read_all(answers))
        return answers
    finally:
        for answer in answers:
            worker.cancel(answer)


async def _read_all(answers: Sequence[Answer]) -> None:
    for answer in answers:
        async for _ in answer:
            pass


async def unless_gone(request: Request, work: Coroutine):
    """What the work returns; ClientDisconnect as soon as the client is gone."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class AnswerStream(StreamingResponse):
    """A stream of an answer that is cancelled when the response ends, however it does."""

    @classmethod
    async def begun(
        cls, request: Request, worker: Worker, answer: Answer, events: AsyncIterator[bytes], kind: str
    ) -> AnswerStream:
        """The stream, once its first piece is there: what can't be written is refused by a status, not in the
        middle."""
        try:
            first = await unless_gone(request, _next(events))
        except BaseException:
            worker.cancel(answer)
            raise
        stream = cls(_with(first, events), media_type=kind)
        stream.worker, stream.answer = worker, answer
        return stream

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.worker.cancel(self.answer)


async def _next(events: AsyncIterator[bytes]) -> bytes:
    return await anext(events)


async def _with(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for event in events:
        yield event
