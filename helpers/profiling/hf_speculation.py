"""transformers' own speculation: assisted generation and prompt lookup, on its own step and on ours (notebook 07)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from helpers.decoding.kv_cache import KVCache
from helpers.kernels.fastest_step import is_our_own


class _CroppedFromTheEnd(KVCache):
    """The course's cache, as transformers' loop crops its own: by minus the number of tokens to forget."""

    def crop(self, minus_tokens: int) -> None:
        if minus_tokens:
            super().crop(self.length + minus_tokens)


def on_our_step(model: nn.Module, fast: nn.Module, longest: int) -> nn.Module:
    """The model as transformers' `generate` takes it, computing each step by `fast` (fastest_step of the model) into
    the course's cache, with room for answers of `longest` tokens.

    A copy that shares the model's weights; transformers' own loop and candidates stay. For one prompt without padding:
    the mask and the positions that `generate` makes are not read.
    """
    if not is_our_own(fast):  # a model of transformers' own with packed linears
        return fast
    on_fast = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})

    def forward(
        input_ids, attention_mask=None, past_key_values=None, logits_to_keep=0, **unused
    ) -> CausalLMOutputWithPast:
        out = fast(input_ids, past_key_values, logits_to_keep=logits_to_keep)
        return CausalLMOutputWithPast(logits=out.logits, past_key_values=past_key_values)

    def prepare_cache(generation_config, model_kwargs, generation_mode, batch_size, max_cache_length) -> None:
        if model_kwargs.get("past_key_values") is None:  # a draft's goes from one call to the next
            model_kwargs["past_key_values"] = _CroppedFromTheEnd.for_model(fast, max_cache_length + longest)

    on_fast.forward, on_fast._prepare_cache_for_generation = forward, prepare_cache
    return on_fast


def hf_answer(
    model: nn.Module,
    max_new_tokens: int,
    assistant: nn.Module | None = None,
    settings: Mapping[str, object] | None = None,
    **options,
) -> Callable[[Sequence[int]], list[int]]:
    """`generate`, greedy, from a prompt's token ids to the answer's.

    Args:
        assistant: the draft, with `settings` of its generation config: num_assistant_tokens, and the confidence below
            which it stops. The number stays as it is; by default transformers would change it as it goes.
        options: of `generate`, prompt_lookup_num_tokens say.
    """
    if assistant is not None:
        own = copy.deepcopy(assistant.generation_config)
        own.update(num_assistant_tokens_schedule="constant", **(settings or {}))
        options["assistant_model"] = assistant

    def answer(ids: Sequence[int]) -> list[int]:
        if assistant is not None:
            assistant.generation_config = own  # at each call: several arms may share the draft
        feed = torch.tensor([list(ids)], device=model.device)
        more = dict(attention_mask=torch.ones_like(feed), max_new_tokens=max_new_tokens, do_sample=False)
        return model.generate(feed, **more, **options)[0, len(ids) :].tolist()

    return answer
