"""Whether several ways to compute a step give the same tokens (notebook 00c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from helpers.profiling.against_generate import our_greedy


def same_answers(
    arms: Mapping[str, nn.Module], prompts: Sequence[Sequence[int]], max_new_tokens: int = 256
) -> tuple[int, int]:
    """(prompts that all models answer with the same tokens, greedily; all prompts)."""
    answers = [[our_greedy(model, max_new_tokens)(ids) for ids in prompts] for model in arms.values()]
    same = [all(answer == first for answer in others) for first, *others in zip(*answers)]
    return sum(same), len(same)
