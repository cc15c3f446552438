"""The server's addresses: TGI's, SageMaker's, OpenAI's, and Prometheus' (notebook 11).

Thin: it reads requests, hands them to the worker, and writes down what comes. Whatever is wrong with a request is a 4xx
with a sentence that says what to change.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from helpers.errors import CourseError
from helpers.serving import formats, schemas
from helpers.serving.formats import Dialect, line, sse
from helpers.serving.worker import Answer, BusyError, Wanted, Worker

MAX_BODY = 1 << 20  # bytes of a request
DIALECTS = ("lmi", "lmi-0.26")


def make_app(worker: Worker, model: str, *, dialect: str = "lmi", max_body: int = MAX_BODY) -> FastAPI:
    """The application over a worker; `model` is the name that it goes by, `dialect` how /invocations answers."""
    if dialect not in DIALECTS:
        raise CourseError(f"There is no dialect {dialect!r}; there are {', '.join(DIALECTS)}.")
    tokenizer, numbers = worker.tokenizer, itertools.count(1)
    special = frozenset(tokenizer.all_special_ids)
    tgi, container = Dialect("tgi", special), Dialect(dialect, special)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        yield
        await asyncio.to_thread(worker.stop)

    app = FastAPI(title="The course's server", lifespan=lifespan)
    app.add_middleware(_Limit, max_body=max_body)
    _add_errors(app)

    def ids_of(text: str) -> list[int]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise CourseError("The prompt has no tokens: write something.")
        return ids

    def wanted(text: str, parameters: schemas.Parameters) -> Wanted:
        stop, eos = tuple(parameters.stop), parameters.ignore_eos_token
        return Wanted(ids_of(text), parameters.max_new_tokens, parameters.sampling(), stop, eos)

    @app.get("/ping")
    @app.get("/health")
    async def ping() -> dict:
        return {"status": "healthy"}

    @app.get("/v1/models")
    async def list_models() -> dict:
        return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "course"}]}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        return prometheus(worker)

    @app.post("/generate")
    async def generate(request: Request, body: schemas.Generate):
        if body.stream:
            return await stream_tgi(request, body)
        [answer] = await whole(request, worker, [wanted(body.inputs, body.parameters)])
        return tgi.whole(answer, _before(body), body.parameters.details)

    @app.post("/generate_stream")
    async def generate_stream(request: Request, body: schemas.Generate):
        return await stream_tgi(request, body)

    async def stream_tgi(request: Request, body: schemas.Generate) -> Response:
        answer = worker.submit(wanted(body.inputs, body.parameters))
        return await _streamed(worker, [answer], _events(tgi, answer, _before(body), sse), "text/event-stream")

    @app.post("/invocations")
    async def invocations(request: Request, body: schemas.Invocation):
        if isinstance(body.inputs, str):
            if body.stream:
                answer = worker.submit(wanted(body.inputs, body.parameters))
                events = _events(container, answer, _before(body), line)
                return await _streamed(worker, [answer], events, "application/jsonlines")
            [answer] = await whole(request, worker, [wanted(body.inputs, body.parameters)])
            return container.whole(answer, _before(body), body.parameters.details)
        if body.stream:
            raise CourseError("A stream has one prompt: send one request for each, or stream: false.")
        answers = await whole(request, worker, [wanted(text, body.parameters) for text in body.inputs])
        before = body.inputs if body.parameters.return_full_text else [""] * len(answers)
        return [container.whole(one, text, body.parameters.details) for one, text in zip(answers, before, strict=True)]

    @app.post("/v1/completions")
    async def completions(request: Request, body: schemas.Completion):
        ids, echo = ids_of(body.prompt), body.prompt if body.echo else ""
        return await openai(request, body, ids, body.max_tokens or 16, body.logprobs is not None, echo)

    @app.post("/v1/chat/completions")
    async def chat(request: Request, body: schemas.Chat):
        if not getattr(tokenizer, "chat_template", None):
            raise CourseError("This model has no chat template: use /v1/completions.")
        messages = [message.model_dump() for message in body.messages]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        longest = body.max_completion_tokens or body.max_tokens or 128
        return await openai(request, body, ids, longest, body.logprobs)

    async def openai(
        request: Request, body: schemas.OpenAI, ids: list[int], longest: int, log_probs: bool, echo: str = ""
    ):
        is_chat, number = isinstance(body, schemas.Chat), f"cmpl-{next(numbers)}"
        asked = [Wanted(ids, longest, body.sampling(k), body.stops) for k in range(body.n)]
        if body.stream:
            if body.n > 1:
                raise CourseError("A stream has one answer here: send n requests, or stream: false.")
            answer = worker.submit(asked[0])
            events = _openai_events(answer, number, model, is_chat, log_probs)
            return await _streamed(worker, [answer], events, "text/event-stream")
        answers = await whole(request, worker, asked)
        choices = [formats.openai_choice(one, k, is_chat, log_probs, echo) for k, one in enumerate(answers)]
        usage = formats.usage_of(len(ids), answers)
        return formats.openai_envelope(choices, number, model, is_chat, chunk=False, usage=usage)

    return app


def _before(body: schemas.Generate | schemas.Invocation) -> str:
    return body.inputs if body.parameters.return_full_text else ""


async def whole(request: Request, worker: Worker, asked: Sequence[Wanted]) -> list[Answer]:
    """All answers, written at the same time; cancelled as soon as the client is gone."""
    answers: list[Answer] = []
    try:
        for each in asked:
            answers.append(worker.submit(each))
        reading = asyncio.gather(*(_read(answer) for answer in answers))
        gone = asyncio.ensure_future(_gone(request))
        await asyncio.wait({reading, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            reading.cancel()
            raise asyncio.CancelledError
        gone.cancel()
        await reading
        return answers
    finally:
        for answer in answers:
            worker.cancel(answer)


async def _read(answer: Answer) -> None:
    async for _ in answer:
        pass


async def _gone(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.2)


async def _streamed(worker: Worker, answers: list[Answer], events: AsyncIterator[bytes], kind: str) -> Response:
    """A stream, whose first piece is waited for: what can't be written is refused by a status, not in the middle."""
    try:
        first = await anext(events)
    except BaseException:
        for answer in answers:
            worker.cancel(answer)
        raise

    async def all_of_them() -> AsyncIterator[bytes]:
        try:
            yield first
            async for event in events:
                yield event
        finally:  # the client may be gone
            for answer in answers:
                worker.cancel(answer)

    return StreamingResponse(all_of_them(), media_type=kind)


async def _events(
    dialect: Dialect, answer: Answer, before: str, write: Callable[[dict], bytes]
) -> AsyncIterator[bytes]:
    """Each token when the next one has come: only then is it known not to be the last."""
    held = None
    async for token in answer:
        if held is not None:
            yield write(dialect.event(answer, held, last=False, before=before))
        held = token
    if held is not None:
        yield write(dialect.event(answer, held, last=True, before=before))


async def _openai_events(answer: Answer, number: str, model: str, chat: bool, log_probs: bool) -> AsyncIterator[bytes]:
    def chunk(token, reason=None) -> bytes:
        choice = formats.openai_chunk(token, reason, 0, chat, log_probs)
        return sse(formats.openai_envelope([choice], number, model, chat, chunk=True, usage=None))

    async for token in answer:
        yield chunk(token)
    yield chunk(None, answer.finish_reason)
    yield sse("[DONE]")


def prometheus(worker: Worker) -> str:
    """The worker's counts, as Prometheus reads them."""
    cache, scheduler = worker.engine.cache, worker.engine.scheduler
    rows = {
        "requests_total": ("counter", "requests that came in", worker.requests),
        "generated_tokens_total": ("counter", "tokens written", worker.tokens_written),
        "steps_total": ("counter", "steps of the engine", worker.steps),
        "preemptions_total": ("counter", "sequences that had to give way", scheduler.preemptions),
        "requests_running": ("gauge", "sequences that are answered", len(scheduler.running)),
        "requests_waiting": ("gauge", "sequences that wait", len(scheduler.waiting)),
        "kv_blocks_free": ("gauge", "blocks of the KV cache that nobody uses", len(cache.pool.free)),
        "kv_blocks": ("gauge", "blocks of the KV cache", cache.num_blocks),
    }
    lines = []
    for name, (kind, words, value) in rows.items():
        lines += [f"# HELP course_{name} {words}", f"# TYPE course_{name} {kind}", f"course_{name} {value}"]
    return "\n".join(lines) + "\n"


def _problem(status: int, sentence: str, headers: dict | None = None) -> JSONResponse:
    return JSONResponse({"error": sentence, "code": status}, status, headers=headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return _problem(400, f"The body is no JSON: {first['ctx']['error']}.")
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        if first["type"] == "extra_forbidden":
            return _problem(422, f"There is no field {place!r} here: leave it out.")
        return _problem(422, f"{place or 'The body'}: {first['msg'][0].lower()}{first['msg'][1:]}.")

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> Response:
        return _problem(429, str(error), {"Retry-After": "1"})

    @app.exception_handler(CourseError)
    async def refused(request: Request, error: CourseError) -> Response:
        return _problem(400, str(error))

    @app.exception_handler(HTTPException)
    async def known(request: Request, error: HTTPException) -> Response:
        sentence = {404: f"There is nothing at {request.url.path}.", 405: f"{request.method} is not done here."}
        return _problem(error.status_code, sentence.get(error.status_code, str(error.detail)), error.headers)


class _Limit:
    """Refuses a body that is too long, before it is read."""

    def __init__(self, app, max_body: int):
        self.app, self.max_body = app, max_body

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, read = dict(scope["headers"]), 0
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.max_body:
            return await self._refuse(scope, receive, send)

        async def counted():
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.max_body:
                raise HTTPException(413, self._sentence())
            return message

        await self.app(scope, counted, send)

    def _sentence(self) -> str:
        return f"A request has {self.max_body:,} bytes at most: send a shorter one."

    async def _refuse(self, scope, receive, send) -> None:
        await _problem(413, self._sentence())(scope, receive, send)
