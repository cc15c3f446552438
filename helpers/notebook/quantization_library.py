"""bitsandbytes beside the course's own int8 and NF4: the same codes, and what its kernels cost here (notebook 02)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import nn

from helpers import models
from helpers.errors import CourseError
from helpers.measuring.timing import speedup, take_turns
from helpers.notebook.quantization_models import Opened
from helpers.notebook.quantization_sizes import QuantizationSizes
from helpers.notebook.quantization_speed import rows_in_words
from helpers.notebook.results import Results
from helpers.notebook.step_times import note_speedup
from helpers.profiling.quantized_steps import NUM_TOKENS
from helpers.weights.quantization.bitsandbytes_models import load_quantized
from helpers.weights.quantization.calibration import observed_linears
from helpers.weights.quantization.integer import linear_bytes
from helpers.weights.quantization.llm_int8 import Int8Linear
from helpers.weights.quantization.nf4_codes import nf4_codes


def compare_codes(results: Results, model: nn.Module) -> None:
    """Our int8 and NF4 codes and scales against bitsandbytes', of every linear layer, to the bit; writes both
    invariants."""
    linears = observed_linears(model)
    same = {
        "int8": sum(map(_int8_is_theirs, linears.values())),
        "nf4": sum(map(_nf4_is_theirs, linears.values())),
    }
    for kind, count in same.items():
        key = f"quantization.{kind}_equals_bitsandbytes"
        results.invariant(key, count == len(linears), count, len(linears))
        print(f"{kind}: codes and scales equal to bitsandbytes' in {count} of {len(linears)} layers")


def _int8_is_theirs(linear: nn.Linear) -> bool:
    from bitsandbytes.functional import int8_vectorwise_quant

    ours = Int8Linear(linear)
    codes, largest, _ = int8_vectorwise_quant(linear.weight.detach().half())
    scales = largest.reshape(-1, 1).float() / 127  # what they keep is a row's largest magnitude
    return torch.equal(ours.codes, codes) and torch.equal(ours.scales, scales)


def _nf4_is_theirs(linear: nn.Linear) -> bool:
    from bitsandbytes.functional import quantize_4bit

    codes, absmax = nf4_codes(linear.weight.detach().flatten())
    # Without double quantization: their CPU kernel looks scales up in a table, and misses the nearest near a middle.
    packed, state = quantize_4bit(linear.weight.detach(), blocksize=64, compress_statistics=False, quant_type="nf4")
    return torch.equal(codes[::2] << 4 | codes[1::2], packed.flatten()) and torch.equal(absmax, state.absmax)


def time_bitsandbytes(
    results: Results, opened: Opened, tokens: Sequence[int], sizes: QuantizationSizes, rounds: int
) -> dict[str, float]:
    """bitsandbytes' LLM.int8 and NF4 beside the library's own bfloat16 model, none of them packed: bytes of the linear
    layers, and a pass over 1, 8 or 32 tokens without a cache; returns the seconds of a pass over one, and writes its
    speed over bfloat16's."""
    if sizes.layers is not None:
        print("bitsandbytes' models are left out under this profile: a test runs them on a small model.")
        return {}
    device = opened.tuned.device.type
    arms = {"bf16": models.load(opened.name, "bfloat16", device)[0]}
    for kind in ("llm_int8", "nf4"):
        try:
            arms[kind] = load_quantized(opened.name, kind, device=device)[0]
        except CourseError as reason:
            print(f"{kind} is left out: {reason}")
    words = {"bf16": "bfloat16", "llm_int8": "LLM.int8", "nf4": "NF4"}
    held = {name: linear_bytes(model) for name, model in arms.items()}  # before NF4 is packed anew
    text = torch.tensor([list(tokens)], device=device)
    passes = {
        (name, n): partial(model, text[:, :n], use_cache=False) for n in NUM_TOKENS for name, model in arms.items()
    }
    with torch.inference_mode():
        seconds = take_turns(passes, max(3, rounds // 3), warmup=1, device=device)
    print(
        f"{'transformers, bitsandbytes':28}{'MB':>7}" + "".join(f"{rows_in_words(n) + ', ms':>12}" for n in NUM_TOKENS)
    )
    for name in arms:
        times = "".join(f"{median(seconds[name, n]) * 1e3:12.0f}" for n in NUM_TOKENS)
        print(f"{words[name]:28}{held[name] / 1e6:7.1f}{times}")
        if name != "bf16":
            for n in NUM_TOKENS:
                gain = speedup(seconds["bf16", n], seconds[name, n], of=np.median)
                note_speedup(results, f"quantization.bitsandbytes_speedup.{name}.rows_{n}", gain)
            results.metric(f"quantization.bitsandbytes_bytes_ratio.{name}", held[name] / held["bf16"], "ratio")
    slower = [words[n] for n in arms if n != "bf16" and median(seconds[n, 1]) > median(seconds["bf16", 1])]
    print(f"Slower than bfloat16 at one row, though smaller: {' and '.join(slower) or 'none'}.")
    return {name: median(seconds[name, 1]) for name in arms}
