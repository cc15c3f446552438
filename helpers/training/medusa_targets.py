"""What Medusa heads learn from: the states that made an answer's tokens, and the tokens after those (notebook 08)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from helpers.training.completions import IGNORED, Encoded
from helpers.training.self_distillation import Answer

OUTSIDE = -1  # the label of a token that the heads never guess: whatever they guess is wrong


@torch.no_grad()
def reference_answers(model, examples: Sequence[Encoded], batch_size: int = 8) -> list[Answer]:
    """The examples' completions, with the states from which the model would say their tokens."""
    answers = []
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        ids = pad_sequence([torch.tensor(e.ids) for e in batch], batch_first=True).to(model.device)
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state  # padding is behind, and not seen
        for e, hidden in zip(batch, states):
            prompt = e.labels.count(IGNORED)
            answers.append(Answer(e.ids[prompt:], hidden[prompt - 1 : len(e.ids) - 1].clone()))
    return answers


def targets(answers: Sequence[Answer], heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the heads learn from.

    Returns:
        hidden states (positions, hidden) that made the answers' tokens, each answer's last one left out, and labels
        (positions, heads): the token ids that each head should guess there, `IGNORED` past the answer's end.
    """
    states, labels = [], []
    for tokens, hidden in answers:
        ahead = torch.tensor([*tokens, *[IGNORED] * heads]).unfold(0, heads, 1)  # row i: token i and those after it
        labels.append(ahead[1 : len(tokens)])
        states.append(hidden[: len(tokens) - 1])
    return torch.cat(states), torch.cat(labels)


def used_tokens(answers: Sequence[Answer], eos: Sequence[int], most: int = 0) -> torch.Tensor:
    """The token ids (num_ids,), sorted, that occur in the answers, the `most` frequent ones of them if it is given, and
    those that end an answer."""
    counts = Counter(token for answer in answers for token in answer.tokens)
    return torch.tensor(sorted({token for token, _ in counts.most_common(most or None)}.union(eos)))


def columns_of(labels: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """The places of labels among sorted token ids; `OUTSIDE` for tokens that are not among them."""
    places = torch.searchsorted(token_ids, labels).clamp(max=len(token_ids) - 1)
    places = places.where(token_ids[places] == labels, OUTSIDE)
    return places.where(labels != IGNORED, IGNORED)
