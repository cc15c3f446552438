"""Our loop behind transformers' `generate` (notebook 08)."""

from __future__ import annotations

import torch

from helpers.decoding.generate import steps
from helpers.errors import CourseError


@torch.inference_mode()
def medusa(
    model,
    input_ids: torch.Tensor,
    generation_config=None,
    stopping_criteria=None,
    logits_processor=None,
    streamer=None,
    proposer=None,
    **unused,
) -> torch.Tensor:
    """For transformers: `model.generate(ids, custom_generate=medusa, proposer=Medusa(heads, tree))`; greedy, 1 prompt.

    Returns:
        (1, prompt and answer): token ids, as `generate` returns them.
    """
    if len(input_ids) != 1 or proposer is None:
        raise CourseError("custom_generate=medusa takes one prompt at a time, and proposer=Medusa(heads, tree).")
    mask = unused.get("attention_mask")
    if (mask is not None and not bool(mask.all())) or generation_config.return_dict_in_generate:
        raise CourseError("custom_generate=medusa takes a prompt without padding, and returns token ids alone.")
    if generation_config.do_sample or len(logits_processor or ()):
        raise CourseError("custom_generate=medusa decodes greedily: leave out sampling and logits processors.")
    tokens, room = input_ids[0].tolist(), generation_config.max_length - input_ids.shape[1]
    eos = generation_config.eos_token_id
    eos = None if eos is None else [eos] if isinstance(eos, int) else list(eos)
    written = (
        t for s in steps(model, list(tokens), max_new_tokens=room, eos=eos, proposer=proposer) for t in s.emitted
    )
    for token in written:  # one by one: a criterion may be met in the middle of a step
        tokens.append(token)
        if streamer is not None:
            streamer.put(torch.tensor([token]))
        now = torch.tensor([tokens], device=input_ids.device)
        if stopping_criteria is not None and bool(stopping_criteria(now, None).all()):
            break
    if streamer is not None:
        streamer.end()
    return torch.tensor([tokens], device=input_ids.device)
