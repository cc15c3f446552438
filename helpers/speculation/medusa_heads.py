"""Medusa: heads on the model's last hidden state guess the tokens after the next one (notebook 08).

Cai et al., "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads", 2024. The model's own
lm_head reads the hidden state at position t and says token t + 1; head i reads the same state and guesses token
t + 1 + i. Medusa-1 trains the heads on a frozen model. What `save` writes is what vLLM and TGI load, too.

With a vocabulary of 49,152 tokens the lm_head is most of what heads cost. `ReducedMedusaHeads` guess only among the
tokens that answers use.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from helpers.errors import CourseError


def residual_block(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    """x + SiLU(W x + b) for x (..., n, hidden), W (..., hidden, hidden) and b
    (..., 1, hidden) or (hidden,)."""
    return x + F.silu(x @ weight.transpose(-1, -2) + bias)


class MedusaHeads(nn.Module):
    """Residual blocks x + SiLU(W x + b), one stack a head, and an lm_head: the model's own for all, or one each.

    W and b begin as zero: a block is exactly the identity, and each head begins as the model's own lm_head. The first
    blocks of all heads read the same state, so they are one product; `packed_linear` installs into it and
    into a shared lm_head.
    """

    def __init__(self, lm_head: torch.Tensor, heads: int = 5, layers: int = 1, own_lm_heads: bool = False):
        """`lm_head` (vocabulary, hidden) is the model's; `own_lm_heads` begins with a copy of it for each head."""
        super().__init__()
        if heads < 1 or layers < 1:
            raise CourseError("Medusa needs at least one head of at least one layer.")
        (vocabulary, hidden), like = lm_head.shape, dict(dtype=lm_head.dtype, device=lm_head.device)
        self.count, self.layers, self.own_lm_heads = heads, layers, own_lm_heads
        self.first = nn.Linear(hidden, heads * hidden, **like)
        for p in self.first.parameters():
            nn.init.zeros_(p)
        self.weight = nn.ParameterList(torch.zeros(heads, hidden, hidden, **like) for _ in range(layers - 1))
        self.bias = nn.ParameterList(torch.zeros(heads, hidden, **like) for _ in range(layers - 1))
        if own_lm_heads:
            self.lm_head = nn.Parameter(lm_head.detach().repeat(heads, 1, 1))  # (heads, vocabulary, hidden)
        else:
            self.lm_head = nn.Linear(hidden, vocabulary, bias=False, device="meta")
            self.lm_head.weight = nn.Parameter(lm_head.detach(), requires_grad=False)

    def blocks(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each layer W (heads, hidden, hidden) and b (heads, hidden): what is trained, as it lies in the file."""
        hidden = self.first.in_features
        first = self.first.weight.view(self.count, hidden, hidden), self.first.bias.view(self.count, hidden)
        return [first, *zip(self.weight, self.bias)]

    def trained(self) -> list[nn.Parameter]:
        """The parameters that are the heads' own."""
        return [p for p in self.parameters() if p.requires_grad]

    def states(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (n, hidden) as each head's own: (heads, n, hidden)."""
        first = F.silu(self.first(hidden)).view(len(hidden), self.count, -1)
        x = hidden + first.transpose(0, 1)
        for weight, bias in zip(self.weight, self.bias):
            x = residual_block(x, weight, bias[:, None])
        return x

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (heads, n, vocabulary) from the last hidden states (n, hidden), after
        the model's final norm."""
        x = self.states(hidden)
        if self.own_lm_heads:
            return torch.bmm(x, self.lm_head.transpose(1, 2))
        return self.lm_head(x)

    @property
    def num_guessable(self) -> int:
        """Among how many tokens a head guesses."""
        return self.lm_head.shape[1] if self.own_lm_heads else self.lm_head.out_features

    def check_width(self, k: int) -> None:
        """CourseError where no head has so many guesses."""
        if k > self.num_guessable:
            raise CourseError(f"A head has no {k} guesses among {self.num_guessable} tokens: take a narrower tree.")

    def best(self, hidden: torch.Tensor, k: int) -> torch.Tensor:
        """Token ids (heads, n, k) of each head's k best guesses, the best first; CourseError where it has fewer."""
        self.check_width(k)
        return self(hidden).topk(k, dim=-1).indices

    def most_likely(self, hidden: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `best`, and the log-probabilities (heads, n, k) that the heads give their guesses."""
        self.check_width(k)
        return _most_likely(self(hidden), k)


class ReducedMedusaHeads(MedusaHeads):
    """Heads that guess only among the tokens `token_ids`, as FR-Spec (Zhao et al. 2025) does for EAGLE.

    They read the shared lm_head's rows of these tokens alone: a head that never guesses a token that answers don't use
    loses nothing, since guesses are verified. To callers their output is over the whole vocabulary, as any head's;
    `best` takes the shorter way.
    """

    def __init__(self, lm_head: torch.Tensor, token_ids: torch.Tensor, heads: int = 5, layers: int = 1):
        """`lm_head` (vocabulary, hidden) is the model's; `token_ids` (num_ids,) are int64, sorted, none twice.

        Raises:
            CourseError: `token_ids` are anything else.
        """
        whole = token_ids.ndim == 1 and len(token_ids) and token_ids.dtype == torch.int64
        if not whole or token_ids[0] < 0 or token_ids[-1] >= len(lm_head) or (token_ids.diff() < 1).any():
            wanted = f"sorted int64 token ids below {len(lm_head)}, each once"
            raise CourseError(f"Reduced heads need {wanted}: give torch.tensor(sorted(set(ids))).")
        token_ids = token_ids.to(lm_head.device)
        super().__init__(lm_head.detach()[token_ids], heads, layers)
        self.vocabulary = len(lm_head)
        self.register_buffer("token_ids", token_ids, persistent=False)  # not trained: the file has them by themselves

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (heads, n, vocabulary); minus infinity for the tokens that are never guessed."""
        reduced = super().forward(hidden)
        logits = reduced.new_full((*reduced.shape[:-1], self.vocabulary), -math.inf)
        logits[..., self.token_ids] = reduced
        return logits

    def best(self, hidden: torch.Tensor, k: int) -> torch.Tensor:
        """Token ids (heads, n, k) of each head's k best guesses, the best first; CourseError where it has fewer."""
        self.check_width(k)
        return self.token_ids[super().forward(hidden).topk(k, dim=-1).indices]

    def most_likely(self, hidden: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `best`, and the log-probabilities (heads, n, k) among the tokens that are guessed."""
        self.check_width(k)
        places, log_probs = _most_likely(super().forward(hidden), k)
        return self.token_ids[places], log_probs


def _most_likely(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    values, places = exact.topk(k, dim=-1)
    return places, values - exact.logsumexp(-1, keepdim=True)
