"""Start the server: `python -m helpers serve --model fine-tuned --medusa medusa` (notebook 11)."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from helpers import models
from helpers.decoding.proposer import Proposer
from helpers.engine.engine import Engine
from helpers.engine.paged_cache import BLOCK
from helpers.errors import CourseError
from helpers.kernels.fastest_step import fastest_step
from helpers.measuring.machine import describe_machine
from helpers.serving.app import make_app
from helpers.serving.worker import Worker
from helpers.speculation.medusa import Medusa
from helpers.speculation.medusa_files import load as load_heads

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Settings:
    """What is served: a model by name, Medusa's heads or none; tokens of the longest text, sequences at a time, and
    requests that may wait; how /invocations answers."""

    model: str = "fine-tuned"
    medusa: str | None = None
    longest: int = 2048
    seats: int = 16
    max_waiting: int = 128
    dialect: str = "lmi"
    device: str = "cpu"


def make_worker(settings: Settings) -> Worker:
    """The model as it runs fastest here, its engine, and the thread that drives it."""
    native = settings.device == "cuda" or describe_machine().bf16_is_native
    dtype = "bfloat16" if native else "float32"
    model, tokenizer = models.load(settings.model, dtype=dtype, device=settings.device)
    step = fastest_step(model)
    blocks = settings.seats * -(-settings.longest // BLOCK)
    engine = Engine(step, blocks, proposer=_proposer(settings, model), max_sequences=settings.seats)
    return Worker(engine, tokenizer, settings.max_waiting)


def _proposer(settings: Settings, model) -> Proposer | None:
    return Medusa(load_heads(settings.medusa, model)) if settings.medusa else None


def free_socket(port: int = 0, host: str = LOOPBACK) -> socket.socket:
    """A socket that listens there, at any free port by default; CourseError where the port is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as reason:
        listening.close()
        raise CourseError(f"Port {port} is taken: choose another one by --port ({reason.strerror}).") from None
    return listening


def server_of(worker: Worker, settings: Settings) -> uvicorn.Server:
    """uvicorn with our application. On SIGTERM it takes no new requests, and ends when those that it has are done."""
    app = make_app(worker, settings.model, dialect=settings.dialect)
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on"))


def serve(settings: Settings, port: int) -> None:
    """Until a signal comes."""
    listening = free_socket(port)
    worker = make_worker(settings)
    print(f"http://{LOOPBACK}:{listening.getsockname()[1]} serves {settings.model}", flush=True)
    server_of(worker, settings).run(sockets=[listening])


@contextmanager
def running(worker: Worker, settings: Settings | None = None, port: int = 0) -> Iterator[str]:
    """A server in a thread of this process, for as long as the block lasts; gives its address."""
    settings, listening = settings or Settings(), free_socket(port)
    server = server_of(worker, settings)
    server.install_signal_handlers = lambda: None  # older versions; newer ones look at the thread
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise CourseError("The server has stopped before it was there: look at its messages.")
        time.sleep(0.01)
    try:
        yield f"http://{LOOPBACK}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
