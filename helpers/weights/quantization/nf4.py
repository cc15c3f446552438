"""QLoRA's base: linear weights in NF4, 4 bits each, with their scales (Dettmers et al. 2023; notebook 03).

A weight is one of 16 levels, the quantiles of a normal distribution, times the largest value of its block of 64; the
blocks' scales are quantized to 8 bits in turn (double quantization). bitsandbytes does the work.
"""

from __future__ import annotations

import torch
from torch import nn


def linear_bytes(model: nn.Module) -> int:
    """Bytes of the weights of all linear layers but the output's, with the scales and tables that they need."""
    head = model.get_output_embeddings()
    return sum(_bytes_of(m.weight) for m in model.modules() if isinstance(m, nn.Linear) and m is not head)


def linear_numbers(model: nn.Module) -> int:
    """How many numbers those weights stand for."""
    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    return sum(m.in_features * m.out_features for m in layers)


def _bytes_of(weight: torch.Tensor) -> int:
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight.nbytes
    scales = [state.absmax, state.code, *((state.state2.absmax, state.state2.code) if state.nested else ())]
    return weight.nbytes + sum(t.nbytes for t in scales)


def nf4(model_id: str, compute: torch.dtype = torch.float32, device: str = "cpu"):
    """A model of the course, a folder or the Hub, its linear weights in NF4 with double quantization.

    Don't merge into it, and on a CPU don't read its weights after a forward pass in eval mode: bitsandbytes then packs
    them in another order, and what `dequantize_4bit` gives is wrong without a word.
    """
    from transformers import BitsAndBytesConfig

    from helpers import models
    from helpers.errors import CourseError

    if len(models.parts_of(model_id)) > 1:
        raise CourseError(f"{model_id} is an adapter: give its base, or a folder with the merged model.")
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )
    return models.from_checkpoint(model_id, quantization_config=config, dtype=compute, device_map={"": device})
