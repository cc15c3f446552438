"""The same trace in the engines that people use, beside ours (notebook 05)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from helpers import models
from helpers.engine.other_engines import replay_in_own_process
from helpers.engine.servers import Continuous
from helpers.engine.traffic import Replay, Request
from helpers.errors import CourseError
from helpers.notebook.batching_bench import BatchingBench, note_gain, replays, show_replays, tokens_per_second
from helpers.notebook.results import Results
from helpers.profiling.opponents import written_files, written_folder

OURS = "ours"
WORDS = {
    OURS: "ours",
    "generate": "generate, static",
    "transformers": "transformers, continuous",
    "vllm": "vLLM, compiled",
    "vllm_eager": "vLLM, eager",
    "llama_cpp_bf16": "llama.cpp, BF16",
    "llama_cpp_q8_0": "llama.cpp, Q8_0",
}
KEYS = {
    "generate": "vs_hf_generate",
    "transformers": "vs_hf_generate_batch",
    "vllm": "vs_vllm",
    "vllm_eager": "vs_vllm.eager",
    "llama_cpp_bf16": "vs_llama_cpp",
    "llama_cpp_q8_0": "vs_llama_cpp.q8_0",
}


def settings_of(bench: BatchingBench) -> dict[str, tuple[str, dict]]:
    """(kind of engine, settings) by name; the files are written where they are missing."""
    threads = dict(num_threads=torch.get_num_threads())
    model, tokenizer = models.load(bench.name)
    folder = str(written_folder(model, tokenizer, bench.name))
    arms = {
        "generate": ("generate", dict(model=bench.name, dtype=bench.dtype)),
        "transformers": ("transformers", dict(model=bench.name, dtype=bench.dtype)),
        "vllm": ("vllm", dict(model=folder, dtype=bench.dtype, compiled=True)),
        "vllm_eager": ("vllm", dict(model=folder, dtype=bench.dtype, compiled=False)),
    }
    for kind, path in written_files(model, bench.name, ("BF16", "Q8_0")).items():
        arms[f"llama_cpp_{kind.lower()}"] = ("llama.cpp", dict(model=str(Path(path))) | threads)
    return arms


def compare_engines(results: Results, bench: BatchingBench, requests: Sequence[Request]) -> Mapping[str, list[Replay]]:
    """All engines on the first of these requests, one process after the other, ours before and after each; writes the
    ratios of whole times. `generate` gets fewer, and so does ours beside it. An engine that takes no part says why."""
    if not bench.sizes.other_runs:
        print(
            "Other engines are left out under this profile: each takes a minute to start. Tests replay a few requests."
        )
        return {}
    found: dict[str, list[Replay]] = {OURS: []}
    sizes = bench.sizes
    print(
        f"The first {sizes.other_requests} requests of the trace, {sizes.generate_requests} of them for `generate`;",
        end=" ",
    )
    print(f"{sizes.other_seats} at a time.")

    def ours(asked: Sequence[Request]) -> list[Replay]:
        kept, _ = replays({OURS: lambda: Continuous(bench.engine(sizes.other_seats))}, asked, 2)
        return kept[OURS]

    for name, (kind, settings) in settings_of(bench).items():
        asked = requests[: sizes.generate_requests if kind == "generate" else sizes.other_requests]
        before = ours(asked)
        try:
            traces = {str(run): asked for run in range(sizes.other_runs)}
            theirs = list(replay_in_own_process(kind, settings, traces, sizes.other_seats).values())
        except CourseError as reason:
            print(f"{WORDS[name]} takes no part: {reason}")
            continue
        beside = [*before, *ours(asked)]
        if kind == "generate":
            found["generate"] = theirs
        else:
            found[name], found[OURS] = theirs, [*found[OURS], *beside]
        count = min(len(theirs), len(beside))
        gain = note_gain(results, KEYS[name], theirs[:count], beside[:count])
        print(f"{WORDS[name]}: {tokens_per_second(theirs):.0f} tokens/s; ours {tokens_per_second(beside):.0f}; {gain}")
    show_replays(results, {name: runs for name, runs in found.items() if runs}, WORDS)
    return found
