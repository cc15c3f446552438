"""A quantized checkpoint in vLLM, and whether it answers as the quantized model does here (notebook 02)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from helpers.profiling import vllm_baseline
from helpers.profiling.against_generate import hf_generate
from helpers.profiling.agreement import margin


@dataclass(frozen=True)
class Served:
    """Greedy answers (token ids) to the same prompts: ours and vLLM's, vLLM's seconds for each; and for each answer
    that differs, by how much our model prefers its own token at the first difference, in nats (agreement.margin)."""

    ours: list[list[int]]
    theirs: list[list[int]]
    seconds: list[float]
    margins: list[float | None]

    @property
    def same(self) -> int:
        """How many answers are the same tokens."""
        return sum(a == b for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def of(self) -> int:
        return len(self.ours)

    @property
    def tokens_per_second(self) -> float:
        """vLLM's, of whole requests one after the other."""
        return sum(map(len, self.theirs)) / sum(self.seconds)


def answers_in_vllm(folder: Path, prompts: Sequence[Sequence[int]], max_new_tokens: int = 256) -> list[list[int]]:
    """Greedy answers of a checkpoint in vLLM, in bfloat16: in float32 it loads no integer weights.

    Raises:
        CourseError: vLLM isn't installed, or stops.
    """
    return _run(folder, prompts, max_new_tokens)["token_ids"]


def serve(model: nn.Module, folder: Path, prompts: Sequence[Sequence[int]], max_new_tokens: int = 256) -> Served:
    """vLLM's answers with the checkpoint beside those of the model that it was written from, as
    `compressed_tensors.as_served` makes it compute, in transformers' loop. Both are in bfloat16, where near ties fall
    either way."""
    theirs = _run(folder, prompts, max_new_tokens)
    ours = [hf_generate(model, max_new_tokens)(ids) for ids in prompts]
    margins = [
        margin(model, prompt, mine, other)
        for prompt, mine, other in zip(prompts, ours, theirs["token_ids"], strict=True)
        if mine != other
    ]
    return Served(ours, theirs["token_ids"], theirs["seconds"], margins)


def _run(folder: Path, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> dict:
    return vllm_baseline.run(Path(folder), prompts, dtype="bfloat16", max_new_tokens=max_new_tokens)
