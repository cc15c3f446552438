"""A recurrent drafter: a head that reads its own guesses (notebook 08).

Medusa's heads all read the state that made the last token, and none of them knows which token that was, let alone what
the heads before it guessed. Here one small network goes on from guess to guess, with what it knows as its state:
Zhang et al., "Recurrent Drafter for Fast Speculative Decoding in Large Language Models", 2024; Ankner et al., "Hydra:
Sequentially-Dependent Draft Heads for Medusa Decoding", 2024. As heads do it learns on a frozen model, and guesses
among the tokens that answers use.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.models.places import DRAFTER, folder_of

TRAINED = ("inner.weight", "inner.bias", "outer.weight")


class RecurrentDrafter(nn.Module):
    """s_0 is the model's last hidden state, x_0 the token that it made; s_i = s_(i-1) + V SiLU(W [s_(i-1), e(x_(i-1))]
    + b) is the state from which lm_head guesses x_i. e is the model's embedding, scaled to a mean square of 1.

    Only W, V and b are trained; V begins as zero, so that each guess begins as the model's own next token.
    """

    def __init__(self, lm_head: torch.Tensor, embedding: torch.Tensor, token_ids: torch.Tensor, width: int = 768):
        """`lm_head` and `embedding` (vocabulary, hidden) are the model's; `token_ids` (num_ids,) are int64, sorted,
        none twice.

        Raises:
            CourseError: `token_ids` are anything else, or the width is below 1.
        """
        super().__init__()
        whole = token_ids.ndim == 1 and len(token_ids) and token_ids.dtype == torch.int64
        if not whole or token_ids[0] < 0 or token_ids[-1] >= len(lm_head) or (token_ids.diff() < 1).any():
            wanted = f"sorted int64 token ids below {len(lm_head)}, each once"
            raise CourseError(f"A recurrent drafter needs {wanted}: give torch.tensor(sorted(set(ids))).")
        if width < 1:
            raise CourseError("A recurrent drafter needs a width of 1 or more.")
        hidden, like = lm_head.shape[1], dict(dtype=lm_head.dtype, device=lm_head.device)
        self.inner, self.outer = nn.Linear(2 * hidden, width, **like), nn.Linear(width, hidden, bias=False, **like)
        nn.init.zeros_(self.outer.weight)
        token_ids = token_ids.to(lm_head.device)
        self.lm_head = nn.Linear(hidden, len(token_ids), bias=False, device="meta")
        self.lm_head.weight = nn.Parameter(lm_head.detach()[token_ids], requires_grad=False)
        self.register_buffer("embedding", F.rms_norm(embedding.detach()[token_ids], (hidden,)), persistent=False)
        self.register_buffer("token_ids", token_ids, persistent=False)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that are its own."""
        return [*self.inner.parameters(), *self.outer.parameters()]

    def columns(self, tokens: torch.Tensor) -> torch.Tensor:
        """The places of tokens among those that it knows; any other token stands for the first of them."""
        places = torch.searchsorted(self.token_ids, tokens).clamp(max=len(self.token_ids) - 1)
        return places.where(self.token_ids[places] == tokens, 0)

    def next_state(self, state: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """The next states, from states (n, hidden) and the places (n,) of the tokens
        that they made."""
        read = torch.cat([state, self.embedding[columns]], -1)
        return state + self.outer(F.silu(self.inner(read)))

    def beam_search(
        self, state: torch.Tensor, column: int, depth: int, beam: int, width: int, least: float
    ) -> tuple[list[int], list[int], list[float]]:
        """Of each depth the `beam` likeliest paths are gone on from, each by its `width` likeliest tokens, as long as a
        path has `least` log-probability; the first from `state` (1, hidden) and the column of the token that it made.

        Returns:
            of each node its column, its parent (-1: the token that is certain) and its path's log-probability.
        """
        read = torch.tensor([column], device=state.device)
        paths, before = [-1], torch.zeros(1, 1, device=state.device)  # where they end, their log-probability
        columns, parents, chances = [], [], []
        for _ in range(depth):
            state = self.next_state(state, read)
            logits = self.lm_head(state).float()
            best, places = logits.topk(width, -1)
            log_probs = (before + best - logits.logsumexp(-1, keepdim=True)).flatten()
            first = len(columns)
            columns += places.flatten().tolist()
            parents += [path for path in paths for _ in range(width)]
            chances += log_probs.tolist()
            before, on = log_probs.topk(min(beam, len(log_probs)))
            on = on[before >= least]
            if not len(on):
                break
            paths = (first + on).tolist()
            before, state, read = log_probs[on][:, None], state[on // width], places.flatten()[on]
        return columns, parents, chances

    def forward(self, hidden: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Logits (depth, n, num_ids) where each guess knows the right tokens before it: from the states (n, hidden)
        that made the first ones of `columns` (n, depth)."""
        logits, state = [], hidden
        for read in columns.unbind(1):
            state = self.next_state(state, read)
            logits.append(self.lm_head(state))
        return torch.stack(logits)


def save(drafter: RecurrentDrafter, place: Path, base: str) -> None:
    """Write config.json and what was trained, in two bytes a number."""
    place.mkdir(parents=True, exist_ok=True)
    state = drafter.state_dict()
    tensors = {name: state[name].detach().to(torch.bfloat16).contiguous() for name in TRAINED}
    save_file(tensors | {"token_ids": drafter.token_ids.int()}, place / DRAFTER)
    (place / DRAFTER).chmod(0o644)
    config = dict(model_type="recurrent_drafter", base_model_name_or_path=base, hidden_size=drafter.outer.out_features)
    (place / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load(place: str | Path, model: nn.Module) -> RecurrentDrafter:
    """The course's drafter ("drafter") or one in a folder, for this model, in its dtype.

    Raises:
        CourseError: where the files are missing or damaged, or made for another width or vocabulary.
    """
    place = Path(folder_of(place))
    lm_head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    try:
        tensors = load_file(place / DRAFTER)
        width, hidden = tensors["outer.weight"].shape[1], tensors["outer.weight"].shape[0]
        if hidden != lm_head.shape[1]:
            raise CourseError(
                f"This drafter is for width {hidden}, the model has {lm_head.shape[1]}: train one for it."
            )
        with torch.random.fork_rng(devices=[]), torch.no_grad():  # what is drawn after it stays what it was
            drafter = RecurrentDrafter(lm_head, embedding, tensors["token_ids"].long(), width)
            for name in TRAINED:
                parameter = drafter.get_parameter(name)
                if parameter.shape != tensors[name].shape:
                    raise RuntimeError(f"{name} is {tuple(tensors[name].shape)} and not {tuple(parameter.shape)}")
                parameter.copy_(tensors[name])
    except (OSError, IndexError, KeyError, RuntimeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".strip(": ")
        message = f"There is no recurrent drafter to read in {place} ({reason}): train_recurrent_drafter makes one."
        raise CourseError(message) from None
    return drafter.eval()
