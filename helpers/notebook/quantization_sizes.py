"""How much notebook 02 and its extras measure under each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QuantizationSizes:
    """The model's first layers (None: all of them); calibration prompts; the alphas that AWQ tries, but one; bits at
    which methods are told apart; test questions answered, and the longest answer; reference answers whose perplexity is
    taken, and texts whose logits are compared; the random shape whose steps are timed; requests that are timed; runs of
    llama.cpp (0: left out) and readings of a file; prompts that vLLM answers (0: none); how the fastest linears are
    chosen (packed_linear.install: 0 measures nothing); training steps of 02d, and examples of one."""

    layers: int | None
    calibration: int
    alphas: int
    few_bits: tuple[int, ...]
    answers: int
    longest: int
    texts: int
    logits: int
    shape: str
    timed: int
    runs: int
    served: int
    turns: int
    training: int
    batch: int


QUANTIZATION = {
    "smoke": QuantizationSizes(2, 2, 3, (3,), 2, 8, 2, 1, "llama-50m", 2, 0, 0, 0, 2, 1),
    "cpu": QuantizationSizes(None, 16, 5, (3,), 24, 128, 20, 4, "llama-500m", 6, 2, 50, 2, 12, 4),
    "full": QuantizationSizes(None, 128, 20, (3, 2), 450, 256, 150, 40, "llama-500m", 100, 5, 50, 5, 120, 8),
    "gpu": QuantizationSizes(None, 128, 20, (3, 2), 450, 256, 150, 40, "llama-500m", 100, 0, 50, 5, 120, 8),
}
