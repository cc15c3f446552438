"""A model's own answers as training examples: what drafts and heads learn from (notebooks 07 and 08).

Whoever guesses a model's tokens learns from exactly those: the ids that it generated. An answer that was decoded and
tokenized again would have other tokens here and there, and one that was cut at a length would seem to end there. Heads
also learn from the hidden states that made the tokens. Decoding computes them anyway, so they are kept: another pass
would read every prompt a second time, and reading prompts is most of the work.
"""

from __future__ import annotations

import hashlib
import json
from collections import abc, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from helpers.decoding.in_batches import write_in_batches
from helpers.decoding.sequence import Sequence
from helpers.kernels.fastest_step import fastest_step
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.prompts import prompt_for
from helpers.training import checkpoint
from helpers.training.completions import IGNORED, Encoded
from helpers.training.processes import first_process_first

MAX_NEW_TOKENS = 100
BATCH_SIZE = 32
SAVE_EVERY = 500  # answers


class Answer(NamedTuple):
    """Token ids, and the state (n, hidden) at the input of the lm_head that made each of these n tokens."""

    tokens: list[int]
    hidden: torch.Tensor


@dataclass(frozen=True, eq=False)
class EncodedAnswer(Encoded):
    """An answer of the model's as a training example, and its states (answer tokens, hidden) at the input of the
    lm_head."""

    states: torch.Tensor


def greedy_answers(
    model, prompts: abc.Sequence[list[int]], max_new_tokens: int, batch_size: int = BATCH_SIZE
) -> list[Answer]:
    """The greedy answer to each prompt (token ids), up to `batch_size` of them written at a time.

    The end-of-sequence token stands in answers that end with it, and not in those that were cut at `max_new_tokens`.
    """
    states: dict[int, list[torch.Tensor]] = defaultdict(list)

    def keep(sequence: Sequence) -> None:
        states[sequence.id].append(sequence.hidden.clone())  # a view would keep the whole prompt's

    options = dict(max_new_tokens=max_new_tokens, batch_size=batch_size, after_each=keep)
    sequences = write_in_batches(model, prompts, **options)
    return [Answer(sequence.written, torch.stack(states[sequence.id])) for sequence in sequences]


def own_answers(
    model,
    tokenizer,
    examples: abc.Sequence[Example],
    place: Path,
    model_hash: str,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Answer]:
    """The model's own answers to the examples' questions, with the states that made them.

    They are kept in a folder, `place` without its suffix, and read from there where the same model (its hash) has
    answered the same prompts already. Under torchrun the first process asks, the others read.
    """
    prompts, answers, fast = _prompts(tokenizer, examples), [], None
    with first_process_first():
        for start in range(0, len(prompts), SAVE_EVERY):
            part, folder = prompts[start : start + SAVE_EVERY], place.with_suffix("") / f"{start:06}"
            identity = hashlib.sha256(json.dumps([model_hash, max_new_tokens, part]).encode()).hexdigest()
            kept = checkpoint.read(folder, "cpu")
            if kept is None or kept["identity"] != identity:
                fast = fast or fastest_step(model, turns=0)
                new = greedy_answers(fast, part, max_new_tokens)
                tokens, hidden = [answer.tokens for answer in new], torch.cat([answer.hidden for answer in new])
                checkpoint.write(folder, {"identity": identity, "tokens": tokens, "hidden": hidden})
                kept = checkpoint.read(folder, "cpu")  # what was made in inference mode could not be trained on
                print(f"{start + len(part)} of {len(prompts)} questions answered", flush=True)
            states = kept["hidden"].split([len(tokens) for tokens in kept["tokens"]])
            answers += map(Answer, kept["tokens"], states)
    return answers


def answered(model, tokenizer, examples: abc.Sequence[Example], place: Path, model_hash: str) -> list[EncodedAnswer]:
    """The model's own answers to the examples' questions, each token a label; kept as by `own_answers`."""
    prompts, answers = _prompts(tokenizer, examples), own_answers(model, tokenizer, examples, place, model_hash)
    return [
        EncodedAnswer(prompt + tokens, [IGNORED] * len(prompt) + tokens, states)
        for prompt, (tokens, states) in zip(prompts, answers, strict=True)
    ]


def _prompts(tokenizer, examples: abc.Sequence[Example]) -> list[list[int]]:
    return [tokenizer(prompt_for(tokenizer, e), add_special_tokens=False).input_ids for e in examples]
