"""Whatever is wrong with a request: a status below 500, and one sentence that says what to change (notebook 11)."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from helpers.errors import CourseError
from helpers.serving.worker import BusyError, StepFailedError, StoppedError

MAX_BODY = 1 << 20  # bytes of a request
STATUS = {BusyError: 429, StoppedError: 503, StepFailedError: 500, CourseError: 400}
BRANCHES = ("constrained-str", "str", "StreamOptions")  # pydantic's names for the parts of a union


class Refusal(BaseModel):
    """What a client reads: the sentence as a string where TGI has it, and as OpenAI's clients look for it."""

    error: str | dict
    code: int


WORDS = {
    400: "the request makes no sense, or asks for too much",
    404: "there is nothing at this address",
    413: "the body is too long",
    422: "a field is missing, unknown or of the wrong kind",
    429: "too many requests are open",
    500: "the engine failed at a step",
    503: "the server is stopping",
}
RESPONSES = {status: {"model": Refusal, "description": words} for status, words in WORDS.items()}


def refusal(request: Request | None, status: int, sentence: str) -> JSONResponse:
    """The sentence, as this address's clients look for it."""
    openai = request is not None and request.scope["path"].startswith("/v1/")
    error = {"message": sentence, "type": "invalid_request_error", "code": status} if openai else sentence
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return JSONResponse({"error": error, "code": status}, status, headers=headers)


def in_words(error: RequestValidationError) -> tuple[int, str]:
    """(status, sentence) of what pydantic found first; of a union's parts the one that came furthest."""
    first = max(error.errors(), key=lambda one: (one["type"] == "extra_forbidden", len(one["loc"])))
    if first["type"] == "json_invalid":
        return 400, f"The body is no JSON: {first['ctx']['error']}."
    named = [str(part) for part in first["loc"] if part not in ("body", *BRANCHES)]
    place = ".".join(part for part in named if not part.startswith("list["))
    if first["type"] == "extra_forbidden":
        return 422, f"There is no field {place!r} here: correct its name, or leave it out."
    if not place:
        return 422, "The body must be a JSON object, and its Content-Type application/json."
    return 422, f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}."


def add_refusals(app: FastAPI, max_body: int = MAX_BODY) -> None:
    """Give the application these handlers, and a bound of what it reads."""
    app.add_middleware(_Limit, max_body=max_body)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return refusal(request, *in_words(error))

    @app.exception_handler(CourseError)
    async def refused(request: Request, error: CourseError) -> Response:
        return refusal(request, next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), str(error))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it

    @app.exception_handler(HTTPException)
    async def known(request: Request, error: HTTPException) -> Response:
        path = request.scope["path"]  # the URL's query may be no text
        sentences = {
            400: "The body can't be read: send JSON in UTF-8.",
            404: f"There is nothing at {path}: see /docs.",
            405: f"{request.method} is not done at {path}: see /docs.",
        }
        return refusal(request, error.status_code, sentences.get(error.status_code, str(error.detail)))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return refusal(request, 500, "The server has a fault: its log says which.")


class _Limit:
    """Refuses a body that is too long, before it is read."""

    def __init__(self, app, max_body: int):
        self.app, self.max_body = app, max_body

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        length, read = dict(scope["headers"]).get(b"content-length", b"0"), 0
        if not length.isdigit() or int(length) > self.max_body:
            return await refusal(Request(scope), 413, self._sentence())(scope, receive, send)

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
