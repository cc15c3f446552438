"""The course's server in a process of its own, as other servers are: `python -m helpers.serving.course_server` (11b).

In 16 bits and with nothing kept from one request to the next, as the servers beside it.
"""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager

from helpers import models
from helpers.engine.engine import Engine
from helpers.engine.paged_cache import BLOCK
from helpers.kernels.fastest_step import fastest_step
from helpers.serving.app import make_app
from helpers.serving.own_process import free_port, server_process
from helpers.serving.run import listening_socket, server_of
from helpers.serving.worker import Worker
from helpers.speculation.medusa import Medusa
from helpers.speculation.medusa_files import load as load_heads

MODULE = "helpers.serving.course_server"


def course_serve(
    model: str, *, dtype: str, longest: int, seats: int, device: str = "cpu", medusa: str | None = None
) -> AbstractContextManager[str]:
    """The model by the name "served"; gives the server's address."""
    port = free_port()
    options = dict(model=model, dtype=dtype, longest=longest, seats=seats, device=device, port=port)
    return server_process("The course's server", MODULE, options | ({"medusa": medusa} if medusa else {}), {}, port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "dtype", "device", "medusa"):
        parser.add_argument(f"--{name}")
    for name in ("longest", "seats", "port"):
        parser.add_argument(f"--{name}", type=int)
    asked = parser.parse_args()
    model, tokenizer = models.load(asked.model, dtype=asked.dtype, device=asked.device)
    proposer = Medusa(load_heads(asked.medusa, model)) if asked.medusa else None
    blocks = asked.seats * -(-asked.longest // BLOCK)
    engine = Engine(fastest_step(model), blocks, proposer=proposer, max_sequences=asked.seats, share_prefixes=False)
    server = server_of(make_app(Worker(engine, tokenizer, 4 * asked.seats, asked.longest), "served"))
    server.run(sockets=[listening_socket(asked.port)])


if __name__ == "__main__":
    main()
