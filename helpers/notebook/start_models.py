"""The models of notebooks 00 and 00c: the base and what fine-tuning made of it, their picture, their attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from helpers import models
from helpers.kernels.fastest_step import fastest_step, is_our_own
from helpers.kernels.native.native_llama import why_not
from helpers.measuring.cost_model import kv_heads_of
from helpers.notebook.diagrams import LlamaShape, draw_llama
from helpers.notebook.lesson import Lesson
from helpers.notebook.sentences import say
from helpers.profiling.attention_seconds import attention_seconds

SMOLLM2 = LlamaShape(576, 30, 9, 3, 64, 1536, 49152, True)


def base_and_fine_tuned(lesson: Lesson):
    """(base, fine-tuned, tokenizer, name of the fine-tuned one), both in float32. A model that isn't the course's base
    has no fine-tuned one beside it: then it stands for both."""
    base, tokenizer = models.load(lesson.model_id, device=lesson.device)
    if lesson.model_id != "base":
        print(f"{lesson.model_id} stands for both: the course has fine-tuned its own base alone.")
        return base, base, tokenizer, lesson.model_id
    lesson.results.add_models(models.parts_of("fine-tuned"))
    return base, models.load("fine-tuned", device=lesson.device)[0], tokenizer, "fine-tuned"


def fused_steps(by_dtype: Mapping[str, nn.Module], turns: int) -> dict[str, nn.Module]:
    """Each model's fused step, the fastest that the course has; a sentence where this kind of model has none."""
    steps = {dtype: fastest_step(model, turns) for dtype, model in by_dtype.items()}
    if not all(map(is_our_own, steps.values())):
        print("The fused step is not written for this kind of model. What is called fused below is its own step,")
        print("with packed linears.")
    elif reason := next(filter(None, map(why_not, by_dtype.values())), None):
        say(f"The fused step is PyTorch's here, not the faster one in C++: {reason}.")
    return steps


def show_model(config, num_tokens: int = 5) -> None:
    """A Llama's picture with this model's numbers; of SmolLM2's where the model is built otherwise."""
    try:
        shape = LlamaShape.of(config)
    except AttributeError:
        print(f"A model of the kind {config.model_type} is built otherwise: the picture shows the course's own.")
        shape = SMOLLM2
    draw_llama(shape, num_tokens=num_tokens)


def show_attention(config, grouped, contexts: Sequence[int] = (128, 512, 2048), rounds: int = 15) -> None:
    """Microseconds of one layer's attention for one token, both ways, by the context."""
    heads, (kv_heads, head_dim) = config.num_attention_heads, kv_heads_of(config)
    seconds = attention_seconds(heads, kv_heads, head_dim, contexts, grouped, 10 * rounds)
    print(f"{heads} query heads, {kv_heads} KV heads of {head_dim} numbers, float32")
    print(f"{'µs a layer, tokens of context:':32}" + "".join(f"{n:8}" for n in contexts))
    for way, times in seconds.items():
        print(f"{way:32}" + "".join(f"{times[n] * 1e6:8.0f}" for n in contexts))
    (slow, fast), longest = seconds.values(), max(contexts)
    if slow[longest] > 1.1 * fast[longest]:
        ratio = slow[longest] / fast[longest]
        print(f"At {longest} tokens attention with copies takes {ratio:.1f} times as long: the copies cost most of it.")
    else:
        print("With heads so few the copies cost nothing that can be seen.")
