"""What a step is made of, each part measured by itself: one linear layer, and a model with next to no weights.

From these a step's time can be predicted before it is measured, in every dtype and for any number of tokens (notebook
01).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from helpers.measuring.cost_model import Shape, kv_heads_of
from helpers.measuring.probes import layer_seconds
from helpers.profiling.step_time import steps_in_turns


@dataclass(frozen=True)
class StepParts:
    """Seconds by the number of tokens that a step reads: of everything that is not a matrix product (`overhead`, all
    layers together), and of one linear layer of `layer_weights` weights, of the model's `weights`."""

    overhead: dict[int, float]
    layer: dict[int, float]
    layer_weights: int
    weights: int
    bytes_per_weight: int

    def seconds(self, num_tokens: int) -> float:
        """The step as predicted: all weights at the speed of the one layer, and the
        overhead."""
        num_layers = self.weights / self.layer_weights
        return self.overhead[num_tokens] + num_layers * self.layer[num_tokens]

    def bytes_per_second(self, num_tokens: int = 1) -> float:
        """How fast the layer's weights are read, for so many tokens."""
        return self.layer_weights * self.bytes_per_weight / self.layer[num_tokens]

    def operations_per_second(self, num_tokens: int) -> float:
        """How fast the layer computes."""
        return 2 * num_tokens * self.layer_weights / self.layer[num_tokens]


def step_parts(
    arms: Mapping[str, nn.Module],
    num_tokens: Sequence[int],
    *,
    prompt: int | None = None,
    context: int = 128,
    rounds: int = 15,
) -> dict[str, StepParts]:
    """The parts of steps that read each of `num_tokens` tokens after `context` tokens, and of the prefill of a prompt
    of `prompt` tokens, for several models that take turns."""
    counts = [*num_tokens, *([prompt] if prompt else [])]
    alike = {name: alike_layers(model) for name, model in arms.items()}
    thin = {name: narrow(model) for name, model in arms.items()}
    layer = layer_seconds(alike, counts)
    overhead = steps_in_turns(thin, num_tokens, context=context, rounds=rounds)
    if prompt:
        for name, times in steps_in_turns(thin, [prompt], context=0, rounds=rounds).items():
            overhead[name] |= times
    return {
        name: StepParts(
            {n: median(seconds) for n, seconds in overhead[name].items()},
            layer[name],
            alike[name][0].weight.numel(),
            Shape.of(model).parameters,
            model.dtype.itemsize,
        )
        for name, model in arms.items()
    }


def alike_layers(model: nn.Module) -> list[nn.Module]:
    """Of the model's linear layers, those of the shape that holds most of the weights."""
    by_shape: dict[tuple, list[nn.Module]] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if weight is not None and weight.ndim == 2 and not isinstance(module, nn.Embedding):
            by_shape.setdefault(tuple(weight.shape), []).append(module)
    return max(by_shape.values(), key=lambda layers: len(layers) * layers[0].weight.numel())


def narrow(model: nn.Module) -> nn.Module:
    """A model with random weights, the same layers, heads and dtype, and next to no width."""
    from transformers import AutoModelForCausalLM

    config = model.config
    width, size = 4 * config.num_attention_heads, kv_heads_of(config)[1]
    has_size = "head_dim" in config.to_dict()  # Falcon's heads are as wide as its hidden state makes them
    changes = dict(
        vocab_size=256,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        intermediate_size=64,
        hidden_size=width if has_size else size * config.num_attention_heads,
    )
    thin = type(config).from_dict(config.to_dict() | changes | ({"head_dim": size} if has_size else {}))
    with torch.random.fork_rng(), torch.device(model.device):
        attention = config._attn_implementation
        return AutoModelForCausalLM.from_config(thin, dtype=model.dtype, attn_implementation=attention).eval()
