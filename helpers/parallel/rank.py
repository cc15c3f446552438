"""What one of several processes does; ranks.py starts it (notebook 06)."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import reduce
from pathlib import Path

import torch
import torch.distributed as dist

from helpers.files import write_whole

LOOPBACK = {"linux": "lo", "darwin": "lo0"}  # gloo would ask for the machine's name, which may have no address


def main(place: str, rank: int, world_size: int, environment: Mapping[str, str]) -> None:
    """Meet the others in a process group, call what `place`/request.json names, and leave its answer there."""
    folder = Path(place)
    _settle(folder, rank, world_size, environment)
    request = json.loads((folder / "request.json").read_text())
    torch.set_num_threads(request["threads"])
    backend = "gloo"
    if torch.cuda.device_count() >= world_size:
        backend = "nccl"
        torch.cuda.set_device(rank)
    try:
        dist.init_process_group(
            backend,
            init_method=f"file://{folder / 'meeting'}",  # no port that somebody else may take
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=request["timeout"]),
        )
        module, name = request["function"].split(":")
        function = reduce(getattr, name.split("."), importlib.import_module(module))
        answer = json.dumps(function(**request["arguments"]))
    except BaseException as error:  # who was first, and why: those who waited fail, too
        failed = dict(time=time.time(), why=f"{type(error).__name__}: {error}")
        write_whole(folder / f"failed-{rank}.json", json.dumps(failed))
        raise
    write_whole(folder / f"answer-{rank}.json", answer)
    dist.barrier()
    dist.destroy_process_group()


def _settle(folder: Path, rank: int, world_size: int, environment: Mapping[str, str]) -> None:
    """As torchrun leaves a process: it knows its place, and what it prints goes to a file of its own."""
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    place = {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_RANK": rank, "TOKENIZERS_PARALLELISM": "false"}
    if sys.platform in LOOPBACK:
        place["GLOO_SOCKET_IFNAME"] = LOOPBACK[sys.platform]
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    os.environ.update({name: str(value) for name, value in place.items()})
    printed = os.open(folder / f"printed-{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(printed, stream.fileno())
        stream.reconfigure(line_buffering=True)


def _end_with_the_starter() -> None:
    """Even if that is killed."""
    multiprocessing.parent_process().join()
    os._exit(1)
