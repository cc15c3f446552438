"""The same model, and the same heads, in vLLM: `python -m helpers.profiling.vllm_baseline` (notebook 08).

A process of its own, since vLLM takes hold of its process's threads. Greedy, one request after the other; with heads
vLLM decodes by a chain of each head's best guess, and counts at which place of the chain how many were accepted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from helpers import files
from helpers.decoding.generate import steps
from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.kernels import torch_compile
from helpers.speculation.medusa import CHAIN, Medusa
from helpers.speculation.medusa_heads import MedusaHeads

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process: it is there in seconds
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def cache_root() -> dict[str, str]:
    """What moves vLLM's cache, where it also compiles, out of a home whose path torch.compile can't take."""
    own = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if torch_compile.is_one_word(os.environ.get("VLLM_CACHE_ROOT") or own):
        return {}
    return {"VLLM_CACHE_ROOT": os.path.join(tempfile.gettempdir(), f"vllm_{os.getuid()}")}


def installed() -> bool:
    """Whether vLLM is here (it exists for Linux on x86-64 and for GPUs)."""
    return importlib.util.find_spec("vllm") is not None


def run(
    model: Path,
    prompts: Sequence[Sequence[int]],
    *,
    dtype: str,
    heads: Path | None = None,
    num_guesses: int = 5,
    compiled: bool = False,
    max_new_tokens: int = 256,
) -> dict:
    """Answer token-id prompts with the model in a folder, one by one.

    Returns:
        "token_ids" and "seconds" of each request; with heads also "drafts", how often the heads guessed, and
        "accepted", how many of these were right up to each place of the chain.
    """
    if not installed():
        raise CourseError("vLLM is not installed here: README.md says where it can be had. The rest runs without it.")
    if compiled and (reason := torch_compile.why_not()):
        raise CourseError(f"vLLM can't compile here, {reason}: or take compiled=False.")
    folder = build_root() / "in_vllm"
    request = dict(
        model=str(model),
        prompts=[list(p) for p in prompts],
        dtype=dtype,
        max_new_tokens=max_new_tokens,
        heads=heads and str(heads),
        num_guesses=num_guesses,
        compiled=compiled,
    )
    write_whole(folder / "request.json", json.dumps(request))
    (folder / "answer.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "helpers.profiling.vllm_baseline", str(folder)]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(files.ROOT)} | cache_root()
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode or not (folder / "answer.json").exists():
        last = (process.stderr.strip().splitlines() or ["it left no message"])[-1]
        raise CourseError(f"vLLM stopped with code {process.returncode}: {last}")
    return json.loads((folder / "answer.json").read_text())


def accepted_by_place(
    model, heads: MedusaHeads, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[float]:
    """Our own chain's acceptance as vLLM counts it: of all runs of the model, in how many was each place of the chain
    accepted. What a step accepts beyond an answer's end counts, too, though nobody gets to see it."""
    num_accepted: list[int] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        num_written, room = 0, len(answer) + heads.count + 1
        for step in steps(model, prompt, eos=[], max_new_tokens=room, proposer=Medusa(heads, CHAIN[: heads.count])):
            if step.kind == "decode":
                num_accepted.append(len(step.accepted))
            num_written += len(step.emitted)
            if num_written >= len(answer):
                break
    return [sum(n > place for n in num_accepted) / max(1, len(num_accepted)) for place in range(heads.count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where request.json is and answer.json goes")
    folder = parser.parse_args().folder
    request = json.loads((folder / "request.json").read_text())
    if request["compiled"]:
        torch_compile.prepare()
    from vllm import LLM, SamplingParams

    speculative = None
    if request["heads"]:
        speculative = dict(method="medusa", model=request["heads"], num_speculative_tokens=request["num_guesses"])
    llm = LLM(
        model=request["model"],
        dtype=request["dtype"],
        max_model_len=1024,
        max_num_seqs=4,
        seed=0,
        enforce_eager=not request["compiled"],
        speculative_config=speculative,
        disable_log_stats=False,
        enable_prefix_caching=False,
    )
    greedy = SamplingParams(temperature=0.0, max_tokens=request["max_new_tokens"])

    def answer(prompt: list[int]) -> list[int]:
        return list(llm.generate({"prompt_token_ids": prompt}, greedy, use_tqdm=False)[0].outputs[0].token_ids)

    for prompt in request["prompts"][:2]:  # warm
        answer(prompt)
    before, token_ids, seconds = counters(llm), [], []
    for prompt in request["prompts"]:
        began = time.perf_counter()
        token_ids.append(answer(prompt))
        seconds.append(time.perf_counter() - began)
    after = counters(llm)
    during = {name: _difference(after[name], before[name]) for name in after}
    write_whole(folder / "answer.json", json.dumps({"token_ids": token_ids, "seconds": seconds} | during))


def counters(llm) -> dict:
    """vLLM's own counts of speculation so far."""
    counts = {}
    for metric in llm.get_metrics():
        if metric.name.startswith("vllm:spec_decode_num_drafts"):
            counts["drafts"] = metric.value
        elif metric.name.startswith("vllm:spec_decode_num_accepted_tokens_per_pos"):
            counts["accepted"] = list(metric.values)
    return counts


def _difference(after, before):
    return [a - b for a, b in zip(after, before)] if isinstance(after, list) else after - before


if __name__ == "__main__":
    main()
