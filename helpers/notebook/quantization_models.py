"""The models that notebook 02 and its extras quantize, and the texts on which they are compared."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn

from helpers.models.first_layers import keep
from helpers.notebook.lesson import Lesson
from helpers.notebook.quantization_sizes import QuantizationSizes
from helpers.notebook.start_models import base_and_fine_tuned
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.example import Example
from helpers.weights.quantization.calibration import answer_pairs, calibration_prompts, observed_linears

Pair = tuple[list[int], list[int]]  # token ids of a prompt, of its reference answer


class Opened(NamedTuple):
    """Base and fine-tuned model in float32 with their tokenizer, and the fine-tuned one's name."""

    base: nn.Module
    tuned: nn.Module
    tokenizer: object
    name: str


class Texts(NamedTuple):
    """Token ids to calibrate on, of the training split; test questions; their prompts with reference answers."""

    calibration: list[list[int]]
    test: list[Example]
    pairs: list[Pair]


def open_models(lesson: Lesson, sizes: QuantizationSizes) -> Opened:
    """Base and fine-tuned model; under `smoke` cut to their first layers, which a sentence says."""
    base, tuned, tokenizer, name = base_and_fine_tuned(lesson)
    if sizes.layers is not None:
        has = tuned.config.num_hidden_layers
        layers = min(sizes.layers, has)
        for model in {id(one): one for one in (base, tuned)}.values():
            keep(model, layers)
        print(f"Profile {lesson.profile}: only the first {layers} of {has} layers are kept, so that everything below")
        print("runs in a minute. What such a model answers means nothing.")
    return Opened(base, tuned, tokenizer, name)


def texts_for(tokenizer, sizes: QuantizationSizes, seed: int) -> Texts:
    """Calibration prompts of the training split, and test questions with their reference answers."""
    test = load_split("test", limit=max(sizes.answers, sizes.texts))
    calibration = calibration_prompts(tokenizer, sizes.calibration, seed)
    tokens = sum(map(len, calibration))
    print(f"{len(calibration)} training examples to calibrate on, {tokens:,} tokens; {sizes.answers} test questions.")
    return Texts(calibration, test, answer_pairs(tokenizer, test[: sizes.texts]))


def copy_of(model: nn.Module) -> nn.Module:
    """A copy to change in place; only the embedding, the largest matrix, which no method here changes, is shared."""
    embedding = model.get_input_embeddings().weight
    return copy.deepcopy(model, {id(embedding): embedding})


def a_matrix(model: nn.Module) -> tuple[str, nn.Linear]:
    """The first linear layer of the model's blocks, with its name: to look at."""
    return next(iter(observed_linears(model).items()))


def in_bfloat16(model: nn.Module) -> nn.Module:
    """A copy with its parameters in bfloat16; buffers stay: codes, and the frequencies of rotary positions."""
    half = copy.deepcopy(model)
    for parameter in half.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    half.config.dtype = torch.bfloat16
    return half
