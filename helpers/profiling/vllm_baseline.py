"""The same model, and the same heads, in vLLM: `python -m helpers.profiling.vllm_baseline` (notebook 08).

A process of its own, since vLLM takes hold of its process's threads. Greedy, one request after the other; with heads
vLLM decodes by a chain of each head's best guess, and counts at which place of the chain how many were accepted.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.decoding.generate import steps
from helpers.errors import CourseError
from helpers.kernels import torch_compile
from helpers.profiling.own_process import Answers, Request, Workload, ask
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
    load = Workload(prompts, max_new_tokens=max_new_tokens, warmup=prompts[:2])
    options = dict(dtype=dtype, heads=heads, num_guesses=num_guesses, compiled=compiled)
    answers = run_workloads(model, {"one by one": load}, **options)["one by one"]
    return {"token_ids": answers.token_ids, "seconds": answers.seconds} | answers.counts


def run_workloads(
    model: Path,
    workloads: Mapping[str, Workload],
    *,
    dtype: str,
    heads: Path | None = None,
    num_guesses: int = 5,
    compiled: bool = False,
) -> dict[str, Answers]:
    """Answer workloads with the model in a folder; what is counted with heads is as `run` returns it."""
    if not installed():
        raise CourseError("vLLM is not installed here: README.md says where it can be had. The rest runs without it.")
    if compiled and (reason := torch_compile.why_not()):
        raise CourseError(f"vLLM can't compile here, {reason}: or take compiled=False.")
    settings = dict(model=str(model), dtype=dtype, num_guesses=num_guesses, compiled=compiled)
    settings["heads"] = heads and str(heads)
    environment = ENVIRONMENT | cache_root()
    return ask("helpers.profiling.vllm_baseline", settings, workloads, name="vLLM", environment=environment)


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


class VLLM:
    """vLLM's engine in this process, for all workloads of a request."""

    def __init__(self, settings: Mapping, workloads: Mapping[str, Workload]):
        if settings["compiled"]:
            torch_compile.prepare()
        from vllm import LLM

        speculative = None
        if settings["heads"]:
            _let_token_maps_load()
            speculative = dict(method="medusa", model=settings["heads"], num_speculative_tokens=settings["num_guesses"])
        self.llm = LLM(
            model=settings["model"],
            dtype=settings["dtype"],
            max_model_len=max(1024, *(load.longest + settings["num_guesses"] for load in workloads.values())),
            max_num_seqs=max(4, *(load.batch_size for load in workloads.values())),
            seed=0,
            enforce_eager=not settings["compiled"],
            speculative_config=speculative,
            disable_log_stats=False,
            enable_prefix_caching=False,
        )

    def answer(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        from vllm import SamplingParams

        greedy = SamplingParams(temperature=0.0, max_tokens=max_new_tokens)
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return [list(done.outputs[0].token_ids) for done in self.llm.generate(asked, greedy, use_tqdm=False)]

    def counts(self) -> dict:
        """vLLM's own counts of speculation so far."""
        counts = {}
        for metric in self.llm.get_metrics():
            if metric.name.startswith("vllm:spec_decode_num_drafts"):
                counts["drafts"] = metric.value
            elif metric.name.startswith("vllm:spec_decode_num_accepted_tokens_per_pos"):
                counts["accepted"] = list(metric.values)
        return counts


def main() -> None:
    request = Request.of_command_line(__doc__.splitlines()[0])
    engine = VLLM(request.settings, request.workloads)
    request.reply((key, key, engine) for key in request.workloads)


def _let_token_maps_load() -> None:
    """vLLM 0.32 reads the token_map of reduced heads, and then stops because its name is missing among what was read
    (`vllm serve` does so, too: give that the heads over all tokens)."""
    from vllm.model_executor.models.medusa import Medusa as InVllm

    load_weights = InVllm.load_weights

    def load_and_name_all(self, weights):
        return load_weights(self, weights) | {name for name, _ in self.named_parameters() if name == "token_map"}

    InVllm.load_weights = load_and_name_all


if __name__ == "__main__":
    main()
