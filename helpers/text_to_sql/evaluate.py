"""Answers to many questions, and which of them are right: judged by running the SQL (execution.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from helpers.text_to_sql.execution import is_correct
from helpers.text_to_sql.generator import Example
from helpers.text_to_sql.prompts import extract_sql


@torch.inference_mode()
def answer_in_batches(model, tokenizer, prompts: Sequence[str], *, rows: int = 50,
                      max_new_tokens: int = 256) -> list[str]:  # fmt: skip
    """Greedy answers, special tokens left out, many prompts at a time: for counting right ones, not for timing."""
    answers: list[str] = []
    for start in range(0, len(prompts), rows):
        inputs = tokenizer(
            list(prompts[start : start + rows]), return_tensors="pt", padding=True, padding_side="left",
            add_special_tokens=False, return_token_type_ids=False,
        ).to(model.device)  # fmt: skip
        out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        answers += tokenizer.batch_decode(out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return answers


def right_answers(examples: Sequence[Example], answers: Sequence[str],
                  extract: Callable[[str], str | None] = extract_sql) -> list[bool]:  # fmt: skip
    """Whether each answer's SQL returns what the reference returns."""
    return [is_correct(extract(a), e.context, e.answer) for e, a in zip(examples, answers, strict=True)]
