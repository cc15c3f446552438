"""Plain greedy decoding against transformers' `generate`: the same tokens, and in what time (notebook 00)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from helpers.decoding.generate import steps
from helpers.measuring.timing import Timed, interleave

AS_IT_COMES, SAME_LAYERS, OURS = "generate", "generate, packed linears", "ours, fused step"
Answer = Callable[[Sequence[int]], list[int]]


def hf_generate(model, max_new_tokens: int = 256) -> Answer:
    """transformers' own greedy loop: from a prompt's token ids to the answer's."""

    def answer(ids: Sequence[int]) -> list[int]:
        feed = torch.tensor([list(ids)], device=model.device)
        mask = torch.ones_like(feed)
        out = model.generate(feed, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False)
        return out[0, len(ids) :].tolist()

    return answer


def our_greedy(model, max_new_tokens: int = 256) -> Answer:
    """The course's loop without a proposer."""

    def answer(ids: Sequence[int]) -> list[int]:
        return [token for step in steps(model, ids, max_new_tokens=max_new_tokens) for token in step.emitted]

    return answer


def against_generate(
    model, packed, fused, prompts: Sequence[Sequence[int]], *, max_new_tokens: int = 256, warmup: int = 2
) -> dict[str, Timed]:
    """All three answer all prompts, in turns: `generate` with the model as it comes and with packed linears, and the
    course's loop with its fastest step."""
    arms = {
        AS_IT_COMES: hf_generate(model, max_new_tokens),
        SAME_LAYERS: hf_generate(packed, max_new_tokens),
        OURS: our_greedy(fused, max_new_tokens),
    }
    return interleave(arms, prompts, warmup=warmup, device=str(model.device))


def identical(timed: dict[str, Timed], *arms: str) -> list[int]:
    """The prompts (their places) to which all these arms gave the same tokens."""
    answers = zip(*(timed[arm].results for arm in arms), strict=True)
    return [place for place, same in enumerate(answers) if all(answer == same[0] for answer in same)]
