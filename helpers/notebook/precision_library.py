"""What torch's ways to half precision convert (notebook 01)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from helpers.measuring.quality import logits_of, worst_logit_error


def frequencies_of(model: nn.Module) -> list[torch.Tensor]:
    """The frequencies of the rotary position embedding; none where a model has no such."""
    return [buffer for name, buffer in model.named_buffers() if name.endswith("inv_freq")]


def show_frequencies(
    exact: nn.Module, converted: nn.Module, prompts: Mapping[str, Sequence[Sequence[int]]]
) -> dict[str, float]:
    """In what the ways to convert keep the frequencies, and what it does to the logits to round these alone, on prompts
    of several lengths; returns the largest errors."""
    cast = copy.deepcopy(exact).to(torch.bfloat16)
    for name, model in {"dtype=": converted, ".to()": cast}.items():
        dtypes = {str(frequencies.dtype).removeprefix("torch.") for frequencies in frequencies_of(model)}
        print(f"{name:7} keeps the frequencies in {', '.join(dtypes) or '(this model has none)'}")
    rounded = copy.deepcopy(exact)
    for frequencies in frequencies_of(rounded):
        frequencies.copy_(frequencies.bfloat16())
    errors = {}
    for words, chosen in prompts.items():
        errors[words] = worst_logit_error(logits_of(rounded), logits_of(exact), chosen)
        print(
            f"only the frequencies in bfloat16, {words} prompts ({len(chosen[0])} to {len(chosen[-1])} tokens):",
            end=" ",
        )
        print(f"logits off by {errors[words]:.3f} at most")
    return errors
