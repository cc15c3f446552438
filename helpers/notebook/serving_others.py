"""Other servers, asked with the same client in OpenAI's schema (notebook 11)."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from helpers import models
from helpers.errors import CourseError
from helpers.kernels.openmp_team import release_team
from helpers.notebook.results import Results
from helpers.notebook.serving_bench import ROOM, SEATS, ServingBench, note_load
from helpers.profiling.llama_cpp_baseline import LlamaCpp
from helpers.profiling.opponents import written_files
from helpers.serving.load_test import offer, openai_piece
from helpers.serving.run import running


def compare_servers(results: Results, bench: ServingBench) -> None:
    """The same prompts to our server and llama.cpp's, as many at a time as there are seats, twice in turns; writes the
    second time's figures. Neither keeps prompts from one time to the next. A server that takes no part says why."""
    if not bench.sizes.others:
        return print("Other servers are left out under this profile.")
    servers, addresses = ExitStack(), {}
    addresses["ours"] = servers.enter_context(running(bench.worker(share_prefixes=False)))
    try:
        [path] = written_files(models.load(bench.name)[0], bench.name, ["BF16"]).values()
        other = LlamaCpp(path, capacity=ROOM, batch_size=SEATS, num_threads=torch.get_num_threads())
        addresses["llama_cpp"] = f"http://{other.address}"
    except CourseError as reason:
        print(reason)
    asked = dict(max_tokens=bench.sizes.longest, temperature=0, stream=True, stream_options={"include_usage": True})
    bodies = [{"prompt": text} | asked for text in bench.prompts[: bench.sizes.requests]]
    found = {}
    release_team()  # of the thread that has read and written files
    with servers:
        for _ in range(2):
            for name, address in addresses.items():
                found[name] = offer(address + "/v1/completions", bodies, 1.0, openai_piece, in_flight=SEATS)
    print(f"{'':12}{'tokens/s':>9}{'to first token, p50 (s)':>26}{'between tokens, p50 (ms)':>27}")
    for name, load in found.items():
        if len(load.done) < len(bodies):
            print(f"{name}: {len(bodies) - len(load.done)} of {len(bodies)} requests were not answered.")
        note_load(results, name, load)
        first, between = (load.statistics(what)["p50"] for what in ("time_to_first_token", "inter_token_latency"))
        print(f"{name:12}{load.output_token_throughput:9.0f}{first:26.2f}{1e3 * between:27.1f}")
