"""vLLM on several ranks: `python -m helpers.profiling.vllm_ranks` (notebook 06)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.profiling import vllm_baseline
from helpers.profiling.own_process import exchange, folder_of_command_line

MODULE = "helpers.profiling.vllm_ranks"


def answers_on_ranks(
    model: Path, prompts: Sequence[Sequence[int]], ranks: int, *, dtype: str, max_new_tokens: int
) -> list[list[int]]:
    """Greedy answers of the model in a folder, cut into as many parts as there are ranks, each on a core.

    Raises:
        CourseError: vLLM isn't installed, or stops: with its own words, where it can't cut the model so.
    """
    if not vllm_baseline.installed():
        raise CourseError("vLLM is not installed here: README.md says where it can be had. The rest runs without it.")
    count = os.cpu_count() or 1
    cores = "|".join(str(rank % count) for rank in range(ranks))  # else it looks for as many NUMA nodes
    environment = vllm_baseline.ENVIRONMENT | vllm_baseline.cache_root() | {"VLLM_CPU_OMP_THREADS_BIND": cores}
    request = dict(model=str(model), prompts=list(map(list, prompts)), ranks=ranks, dtype=dtype, longest=max_new_tokens)
    try:
        return exchange(MODULE, request, name="vLLM", environment=environment)["token_ids"]
    except CourseError as error:
        raise CourseError(str(error).replace(f"{CourseError.__module__}.{CourseError.__name__}: ", "")) from None


def reason_of(message: str) -> str:
    """vLLM's own sentence of a message that pydantic has wrapped."""
    marked = [line.strip() for line in message.splitlines() if "Value error," in line]
    sentence = marked[-1].split("Value error,")[1] if marked else message.strip().splitlines()[-1]
    return sentence.split("[type=")[0].strip()


def main() -> None:
    folder = folder_of_command_line(__doc__.splitlines()[0])
    asked = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    from vllm import LLM, SamplingParams

    try:
        llm = LLM(
            model=asked["model"],
            dtype=asked["dtype"],
            tensor_parallel_size=asked["ranks"],
            max_model_len=max(1024, asked["longest"] + max(map(len, asked["prompts"]))),
            enforce_eager=True,
            seed=0,
        )
    except ValueError as error:  # pydantic's: the reason stands on a line inside
        raise CourseError(reason_of(str(error))) from None
    greedy = SamplingParams(temperature=0.0, max_tokens=asked["longest"])
    done = llm.generate([{"prompt_token_ids": prompt} for prompt in asked["prompts"]], greedy, use_tqdm=False)
    write_whole(folder / "answer.json", json.dumps({"token_ids": [list(one.outputs[0].token_ids) for one in done]}))


if __name__ == "__main__":
    main()
