"""A model's own answers as training examples: what drafts and heads learn from (notebooks 07 and 08).

Whoever guesses a model's tokens learns from exactly those: the ids that it generated. An answer that was decoded and
tokenized again would have other tokens here and there, and one that was cut at a length would seem to end there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from helpers.decoding.forward import eos_tokens
from helpers.files import write_whole
from helpers.text_to_sql.generator import Example
from helpers.text_to_sql.prompts import prompt_for
from helpers.training.completions import IGNORED, Encoded
from helpers.training.processes import first_process_first

MAX_NEW_TOKENS = 100
BATCH_SIZE = 50
SAVE_EVERY = 1000  # answers


@torch.inference_mode()
def greedy_tokens(model, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Greedy answers to a batch of prompts, as token ids: the end-of-sequence token stands in those that end with it,
    and not in those that were cut at `max_new_tokens`."""
    end, pad = set(eos_tokens(model)), model.generation_config.pad_token_id or 0
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    out = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad
    )
    answers = []
    for tokens in out[:, longest:].tolist():
        length = next((i + 1 for i, token in enumerate(tokens) if token in end), len(tokens))
        answers.append(tokens[:length])  # behind the end there is padding
    return answers


def answered(model, tokenizer, examples: Sequence[Example], cache: Path, model_hash: str) -> list[Encoded]:
    """The model's own answers to the examples' questions, each token a label.

    Answers are kept in the file `cache`, and read from it where the same model (its hash) has answered the same prompts
    already. Under torchrun the first process asks, the others read.
    """
    prompts = [tokenizer(prompt_for(tokenizer, e), add_special_tokens=False).input_ids for e in examples]
    identity = {"model": model_hash, "max_new_tokens": MAX_NEW_TOKENS}
    with first_process_first():
        answers = _cached(cache, identity, prompts)
        while len(answers) < len(prompts):
            answers += _in_batches(model, prompts[len(answers) : len(answers) + SAVE_EVERY])
            saved = {"identity": identity, "prompts": prompts[: len(answers)], "answers": answers}
            write_whole(cache, json.dumps(saved))
            print(f"{len(answers)} of {len(prompts)} questions answered", flush=True)
    return [Encoded(p + a, [IGNORED] * len(p) + a) for p, a in zip(prompts, answers, strict=True)]


def _cached(cache: Path, identity: dict, prompts: list[list[int]]) -> list[list[int]]:
    saved = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    answers = saved.get("answers", [])[: len(prompts)]
    same = saved.get("identity") == identity and saved["prompts"][: len(answers)] == prompts[: len(answers)]
    return answers if same else []


def _in_batches(model, prompts: list[list[int]]) -> list[list[int]]:
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # prompts of one length need no padding
    answers: dict[int, list[int]] = {}
    for start in range(0, len(order), BATCH_SIZE):
        batch = order[start : start + BATCH_SIZE]
        answers |= zip(batch, greedy_tokens(model, [prompts[i] for i in batch], MAX_NEW_TOKENS))
    return [answers[i] for i in range(len(prompts))]
