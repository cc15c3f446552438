"""The server's addresses: TGI's, SageMaker's, OpenAI's, and Prometheus' (notebook 11).

Thin: it reads requests, hands them to the worker, and writes down what comes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from helpers.errors import CourseError
from helpers.serving import formats, schemas
from helpers.serving.beams import Beam, Candidates, beam_search
from helpers.serving.formats import Dialect, line, sse
from helpers.serving.refusals import RESPONSES, add_refusals
from helpers.serving.streams import AnswerStream, whole
from helpers.serving.worker import Answer, Wanted, Worker

DIALECTS = ("lmi", "lmi-0.26")


def make_app(worker: Worker, model: str, *, dialect: str = "lmi") -> FastAPI:
    """The application over a worker; `model` is the name that it goes by, `dialect` how /invocations answers."""
    if dialect not in DIALECTS:
        raise CourseError(f"There is no dialect {dialect!r}; there are {', '.join(DIALECTS)}.")
    if model in worker.adapters:
        raise CourseError(f"An adapter can't have the model's own name, {model!r}: give it another one.")
    special, numbers = frozenset(worker.tokenizer.all_special_ids), itertools.count(1)
    tgi, container, prompts = Dialect("tgi", special), Dialect(dialect, special), Prompts(worker.tokenizer)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        yield
        await asyncio.to_thread(worker.stop)

    app = FastAPI(title="The course's server", lifespan=lifespan, responses=RESPONSES)
    add_refusals(app)

    @app.get("/ping")
    @app.get("/health")
    async def ping() -> Response:
        return JSONResponse({"status": "healthy" if worker.alive else "stopped"}, 200 if worker.alive else 503)

    @app.get("/v1/models")
    async def list_models() -> dict:
        names = (model, *worker.adapters)
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "course"} for name in names]
        return {"object": "list", "data": data}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        return prometheus(worker)

    @app.post("/generate")
    async def generate(request: Request, body: schemas.Generate):
        return await answered(request, body, tgi, sse, "text/event-stream")

    @app.post("/generate_stream")
    async def generate_stream(request: Request, body: schemas.Generate):
        body.stream = True
        return await answered(request, body, tgi, sse, "text/event-stream")

    @app.post("/invocations")
    async def invocations(request: Request, body: schemas.Invocation):
        return await answered(request, body, container, line, "application/jsonlines")

    def named(adapter: str | None) -> str | None:
        if adapter is not None and adapter not in worker.adapters:
            there = ", ".join(worker.adapters) or "none"
            raise CourseError(f"There is no adapter {adapter!r} here; there are {there}.")
        return adapter

    async def answered(
        request: Request,
        body: schemas.Generate | schemas.Invocation,
        told: Dialect,
        write: Callable[[dict], bytes],
        kind: str,
    ):
        parameters, several = body.parameters, isinstance(body.inputs, list)
        adapter = named(parameters.adapter_id or getattr(body, "adapters", None))
        texts = body.inputs if several else [body.inputs]
        before = texts if parameters.return_full_text else [""] * len(texts)
        asked = [await prompts.wanted(text, parameters, adapter) for text in texts]
        if body.stream:
            if several:
                raise CourseError("A stream has one prompt: send one request for each, or stream: false.")
            answer = worker.submit(asked[0])
            events = (write(told.event(answer, token, before[0])) async for token in answer)
            return await AnswerStream.begun(request, worker, answer, events, kind)
        answers = await whole(request, worker, asked)
        found = [told.whole(one, text, parameters.details) for one, text in zip(answers, before, strict=True)]
        return found if several else found[0]

    @app.post("/v1/completions")
    async def completions(request: Request, body: schemas.Completion):
        if body.echo and body.stream:
            raise CourseError("echo and stream don't go together here: leave one of them out.")
        ids, echo = await prompts.ids_of(body.prompt), body.prompt if body.echo else ""
        return await openai(request, body, ids, body.max_tokens or 16, body.logprobs is not None, echo)

    @app.post("/v1/chat/completions")
    async def chat(request: Request, body: schemas.Chat):
        ids = await prompts.ids_of_chat([message.model_dump() for message in body.messages])
        longest = body.max_completion_tokens or body.max_tokens or 128
        return await openai(request, body, ids, longest, body.logprobs)

    async def openai(
        request: Request, body: schemas.OpenAI, ids: list[int], longest: int, log_probs: bool, echo: str = ""
    ):
        adapter = None if body.model in (None, "", model) else body.model  # as vLLM has it
        if adapter is not None and adapter not in worker.adapters:
            there = ", ".join([model, *worker.adapters])
            raise CourseError(f"There is no model {adapter!r} here; there are {there}.")
        is_chat, name = isinstance(body, schemas.Chat), adapter or model
        number = f"{'chatcmpl' if is_chat else 'cmpl'}-{next(numbers)}"
        if body.use_beam_search:
            beams, texts = await beamed(request, body, ids, longest, adapter)
            choices = [formats.openai_beam(one, echo + texts[k], k, is_chat) for k, one in enumerate(beams)]
            usage = formats.usage_of(len(ids), beams)
            return formats.openai_envelope(choices, number, name, is_chat, chunk=False, usage=usage)
        asked = [Wanted(ids, longest, each, body.stops, adapter=adapter) for each in body.samplings()]
        if body.stream:
            if body.n > 1:
                raise CourseError("A stream has one answer here: send n requests, or stream: false.")
            answer = worker.submit(asked[0])
            counted = bool(body.stream_options and body.stream_options.include_usage)
            events = _openai_events(answer, number, name, is_chat, log_probs, counted)
            return await AnswerStream.begun(request, worker, answer, events, "text/event-stream")
        answers = await whole(request, worker, asked)
        choices = [formats.openai_choice(one, k, is_chat, log_probs, echo) for k, one in enumerate(answers)]
        usage = formats.usage_of(len(ids), answers)
        return formats.openai_envelope(choices, number, name, is_chat, chunk=False, usage=usage)

    async def beamed(
        request: Request, body: schemas.OpenAI, ids: list[int], longest: int, adapter: str | None
    ) -> tuple[list[Beam], list[str]]:
        if body.stream or body.stop or body.temperature or body.top_p or body.logprobs:
            raise CourseError("Beam search has no stream, stop, temperature, top_p or logprobs here: leave them out.")
        worker.check_length(len(ids), longest)
        eos = worker.engine.eos

        async def next_tokens(beams: Sequence[Sequence[int]]) -> list[Candidates]:
            asked = [Wanted([*ids, *beam], 1, top=body.n + len(eos), adapter=adapter) for beam in beams]
            return [answer.top for answer in await whole(request, worker, asked, admitted=bool(beams[0]))]

        found = await beam_search(next_tokens, body.n, longest, eos, body.length_penalty)
        return found, [worker.tokenizer.decode(beam.tokens, skip_special_tokens=True) for beam in found]

    return app


class Prompts:
    """Texts as token ids, in a thread: a long one would hold up all streams."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    async def ids_of(self, text: str) -> list[int]:
        """CourseError for a text without tokens."""
        found = await asyncio.to_thread(self.tokenizer, text, add_special_tokens=False)
        if not found["input_ids"]:
            raise CourseError("The prompt has no tokens: write something.")
        return found["input_ids"]

    async def ids_of_chat(self, messages: list[dict]) -> list[int]:
        """CourseError where the model's template doesn't take these messages."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise CourseError("This model has no chat template: use /v1/completions.")
        options = dict(add_generation_prompt=True, return_dict=False)
        try:
            return await asyncio.to_thread(self.tokenizer.apply_chat_template, messages, **options)
        except Exception as reason:  # jinja's, or whatever a template raises
            raise CourseError(f"The model's chat template doesn't take these messages: {reason}.") from None

    async def wanted(self, text: str, parameters: schemas.Parameters, adapter: str | None) -> Wanted:
        stop = (*parameters.stop, *parameters.stop_sequences)
        ids, sampling = await self.ids_of(text), parameters.sampling()
        ignored = parameters.ignore_eos_token
        return Wanted(ids, parameters.max_new_tokens, sampling, stop, ignored, adapter=adapter)


async def _openai_events(
    answer: Answer, number: str, model: str, chat: bool, log_probs: bool, counted: bool
) -> AsyncIterator[bytes]:
    def chunk(choices: Sequence[dict], usage: dict | None = None) -> bytes:
        return sse(formats.openai_envelope(choices, number, model, chat, chunk=True, usage=usage))

    first = True
    async for token in answer:
        yield chunk([formats.openai_chunk(token, None, 0, chat, log_probs, first)])
        first = False
    yield chunk([formats.openai_chunk(None, answer.finish_reason, 0, chat, log_probs, first)])
    if counted:
        yield chunk([], formats.usage_of(len(answer.wanted.prompt), [answer]))
    yield sse("[DONE]")


def prometheus(worker: Worker) -> str:
    """The worker's counts, as Prometheus reads them."""
    cache, scheduler = worker.engine.cache, worker.engine.scheduler
    counts = {
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
    for name, (kind, words, value) in counts.items():
        lines += [f"# HELP course_{name} {words}", f"# TYPE course_{name} {kind}", f"course_{name} {value}"]
    return "\n".join(lines) + "\n"
