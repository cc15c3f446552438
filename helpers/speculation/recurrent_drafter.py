"""A recurrent drafter: a head that reads its own guesses (notebook 08).

Medusa's heads all read the state that made the last token, and none of them knows which token that was, let alone what
the heads before it guessed. Here one small network goes on from guess to guess, with what it knows as its state:
Zhang et al., "Recurrent Drafter for Fast Speculative Decoding in Large Language Models", 2024; Ankner et al., "Hydra:
Sequentially-Dependent Draft Heads for Medusa Decoding", 2024. As heads do it learns on a frozen model, and guesses
among the tokens that answers use.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from helpers.errors import CourseError


class RecurrentDrafter(nn.Module):
    """s_0 is the model's last hidden state, x_0 the token that it made; s_i = s_(i-1) + V SiLU(W [s_(i-1), e(x_(i-1))]
    + b) is the state from which lm_head guesses x_i. e are the model's embeddings, each of length 1 times sqrt(hidden).

    `embedding` and `lm_head` are the model's rows (num_ids, hidden) of `token_ids` (num_ids,), sorted; only W, V and b
    are trained. V begins as zero, so that s_i begins as s_0.
    """

    def __init__(self, embedding: torch.Tensor, lm_head: torch.Tensor, token_ids: torch.Tensor, width: int = 768):
        super().__init__()
        hidden, like = lm_head.shape[1], dict(dtype=lm_head.dtype, device=lm_head.device)
        if width < 1 or len(token_ids) != len(lm_head) or (token_ids.diff() < 1).any():
            raise CourseError("A recurrent drafter needs a width of 1 or more, and sorted token ids, one for each row.")
        self.inner, self.outer = nn.Linear(2 * hidden, width, **like), nn.Linear(width, hidden, bias=False, **like)
        nn.init.zeros_(self.outer.weight)
        self.lm_head = nn.Linear(hidden, len(lm_head), bias=False, device="meta")
        self.lm_head.weight = nn.Parameter(lm_head.detach(), requires_grad=False)
        self.register_buffer("embedding", F.rms_norm(embedding.detach(), (hidden,)), persistent=False)
        self.register_buffer("token_ids", token_ids, persistent=False)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that are its own."""
        return [*self.inner.parameters(), *self.outer.parameters()]

    def columns(self, tokens: torch.Tensor) -> torch.Tensor:
        """The places of tokens among those it knows; any other token stands for the first of them."""
        places = torch.searchsorted(self.token_ids, tokens).clamp(max=len(self.token_ids) - 1)
        return places.where(self.token_ids[places] == tokens, 0)

    def next_state(self, state: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """States (n, hidden), and the places (n,) of the tokens that were made of them, to the next states."""
        read = torch.cat([state, self.embedding[columns]], -1)
        return state + self.outer(F.silu(self.inner(read)))
