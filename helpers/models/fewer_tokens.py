"""A model that says only some of its tokens: its lm_head has their rows alone.

Most of what a small draft reads for a guess is its lm_head, and answers use a few thousand tokens of fifty thousand
(FR-Spec, Zhao et al. 2025). A draft that can't say the others loses guesses, never exactness: the target checks all.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from helpers.errors import CourseError


def with_tokens(model: nn.Module, token_ids: torch.Tensor) -> nn.Module:
    """The model with an lm_head of the tokens `token_ids` (num_ids,) alone; all else is shared, and `model` stays as it
    is. Its logits are (..., num_ids), in the order of `token_ids`, which it carries as an attribute.

    Raises:
        CourseError: the ids aren't sorted int64, each once, of the model's vocabulary.
    """
    lm_head = model.get_output_embeddings()
    vocabulary = lm_head.weight.shape[0]
    whole = token_ids.ndim == 1 and len(token_ids) and token_ids.dtype == torch.int64
    if not whole or token_ids[0] < 0 or token_ids[-1] >= vocabulary or (token_ids.diff() < 1).any():
        wanted = f"sorted int64 token ids below {vocabulary}, each once"
        raise CourseError(f"A model of fewer tokens needs {wanted}: give torch.tensor(sorted(set(ids))).")
    token_ids = token_ids.to(lm_head.weight.device)
    head = nn.Linear(lm_head.in_features, len(token_ids), bias=lm_head.bias is not None, device="meta")
    head.weight = nn.Parameter(lm_head.weight.detach()[token_ids], requires_grad=False)
    if lm_head.bias is not None:
        head.bias = nn.Parameter(lm_head.bias.detach()[token_ids], requires_grad=False)
    fewer = copy.copy(model)
    fewer._modules = dict(model._modules)  # a new head is not to replace the model's own
    fewer.set_output_embeddings(head)
    fewer.token_ids = token_ids
    return fewer
