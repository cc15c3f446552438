"""Start the server: `python -m helpers serve --model fine-tuned --medusa medusa` (notebook 11)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI

from helpers import models
from helpers.decoding.proposer import Proposer
from helpers.engine.engine import Engine
from helpers.engine.paged_cache import BLOCK
from helpers.errors import CourseError
from helpers.kernels import packed_linear
from helpers.kernels.fastest_step import fastest_step
from helpers.measuring.machine import describe_machine
from helpers.models.places import base_of
from helpers.serving.adapters import engine_with_adapters
from helpers.serving.app import make_app
from helpers.serving.worker import Worker
from helpers.speculation.medusa import CHAIN, Medusa
from helpers.speculation.medusa_files import load as load_heads

LOOPBACK = "127.0.0.1"
PATIENCE = 600  # seconds in which accepted requests may end


@dataclass(frozen=True)
class Settings:
    """What is served: a model by name, Medusa's heads or none; tokens of the longest text, sequences at a time, and
    requests that may be open; how /invocations answers; adapters by name that requests may ask for. The dtype is the
    one that runs fastest here, unless one is named. With heads each step guesses a chain of so many tokens."""

    model: str = "fine-tuned"
    medusa: str | None = None
    guesses: int = len(CHAIN)
    longest: int = 2048
    seats: int = 16
    max_open: int = 128
    dialect: str = "lmi"
    device: str = "cpu"
    adapters: Mapping[str, str] = field(default_factory=dict)
    dtype: str | None = None
    share_prefixes: bool = True
    name: str | None = None  # that it goes by

    @property
    def goes_by(self) -> str:
        return self.name or self.model


def make_worker(settings: Settings) -> Worker:
    """The model as it runs fastest here, its engine, and the thread that drives it."""
    native = settings.device == "cuda" or describe_machine().bf16_is_native
    dtype = settings.dtype or ("bfloat16" if native else "float32")
    if settings.adapters and settings.medusa:
        raise CourseError("Heads are trained for one model, and each adapter makes another: leave --medusa out.")
    for name, place in settings.adapters.items():
        made_for = base_of(place, models.folder_of(place))
        if models.folder_of(made_for) != models.folder_of(settings.model):
            wrong = f"The adapter {name} was made for {made_for}, not for {settings.model}"
            raise CourseError(f"{wrong}: --model {made_for}.")
    model, tokenizer = models.load(settings.model, dtype=dtype, device=settings.device)
    blocks, options = settings.seats * -(-settings.longest // BLOCK), dict(max_sequences=settings.seats)
    if settings.adapters:
        engine = engine_with_adapters(model, settings.adapters, blocks, **options)
    else:
        options |= dict(proposer=_proposer(settings, model), share_prefixes=settings.share_prefixes)
        engine = Engine(fastest_step(model), blocks, **options)
    return Worker(engine, tokenizer, settings.max_open, settings.longest)


def _proposer(settings: Settings, model) -> Proposer | None:
    if not settings.medusa:
        return None
    if not 1 <= settings.guesses <= len(CHAIN):
        raise CourseError(f"A step guesses 1 to {len(CHAIN)} tokens, not {settings.guesses}: correct --guesses.")
    return Medusa(packed_linear.install(load_heads(settings.medusa, model)), CHAIN[: settings.guesses])


def listening_socket(port: int = 0) -> socket.socket:
    """A socket that listens on the loopback interface, at any free port by default; CourseError where it can't."""
    # With the protocol named: asyncio turns Nagle's delay off only then, and it would cost 40 ms a token.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        listening.listen(256)
    except (OSError, OverflowError) as reason:
        listening.close()
        raise CourseError(f"Port {port} can't be had ({reason}): choose another one by --port.") from None
    return listening


def server_of(app: FastAPI) -> uvicorn.Server:
    """uvicorn with an application. On SIGTERM it takes no new requests, and ends when those that it has are done, or
    after PATIENCE."""
    options = dict(log_level="warning", access_log=False, timeout_graceful_shutdown=PATIENCE)
    return uvicorn.Server(uvicorn.Config(app, **options))


def serve(settings: Settings, port: int) -> None:
    """Until a signal comes."""
    listening = listening_socket(port)
    server = server_of(make_app(make_worker(settings), settings.goes_by, dialect=settings.dialect))
    print(f"http://{LOOPBACK}:{listening.getsockname()[1]} serves {settings.model}", flush=True)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


@contextmanager
def running_app(app: FastAPI) -> Iterator[str]:
    """An application in a thread of this process, for as long as the block lasts; gives its address."""
    listening, thread = listening_socket(), None
    try:
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise CourseError("The server has stopped before it was there: look at its messages.")
            time.sleep(0.01)
        yield f"http://{LOOPBACK}:{listening.getsockname()[1]}"
    finally:
        if thread is not None:
            server.should_exit = True
            thread.join()
        listening.close()


@contextmanager
def running(worker: Worker, model: str = "fine-tuned", dialect: str = "lmi") -> Iterator[str]:
    """The course's server over a worker, which ends with it."""
    try:
        with running_app(make_app(worker, model, dialect=dialect)) as url:
            yield url
    finally:
        worker.stop()
