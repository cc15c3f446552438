"""One of several processes: `python -m helpers.parallel.rank FOLDER`, started by ranks.py (notebook 06)."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from datetime import timedelta
from functools import reduce

import torch
import torch.distributed as dist

from helpers.files import write_whole
from helpers.profiling.own_process import folder_of_command_line


def main() -> None:
    folder = folder_of_command_line(__doc__.splitlines()[0])
    if sys.platform == "linux":  # it ends with who started it, even if that is killed
        from torch.multiprocessing import _prctl_pr_set_pdeathsig

        _prctl_pr_set_pdeathsig(signal.SIGKILL)
    request = json.loads((folder / "request.json").read_text())
    torch.set_num_threads(request["threads"])
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "gloo"
    if torch.cuda.device_count() >= world_size:
        backend = "nccl"
        torch.cuda.set_device(rank)
    dist.init_process_group(
        backend,
        init_method=f"file://{folder / 'meeting'}",  # no port that somebody else may take
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=request["timeout"]),
    )
    module, name = request["function"].split(":")
    function = reduce(getattr, name.split("."), importlib.import_module(module))
    try:
        answer = function(**request["arguments"])
    except BaseException as error:  # who was first, and why: those who waited fail, too
        failed = dict(time=time.time(), why=f"{type(error).__name__}: {error}")
        write_whole(folder / f"failed-{rank}.json", json.dumps(failed))
        raise
    write_whole(folder / f"answer-{rank}.json", json.dumps(answer))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
