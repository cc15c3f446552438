"""Execution accuracy: a prediction is right when it returns what the reference returns, on tables filled for that
(filling.py), whatever it is and whatever it tries (sandbox.py). Notebook 00."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import torch

from helpers.text_to_sql.example import Example
from helpers.text_to_sql.filling import best_filling
from helpers.text_to_sql.prompts import extract_sql
from helpers.text_to_sql.reference import has_order
from helpers.text_to_sql.sandbox import ExecutionError, answer_of
from helpers.text_to_sql.tables import open_tables


def is_correct(predicted_sql: str | None, context: str, reference_sql: str, seed: int = 0) -> bool:
    """Whether the prediction returns the reference's rows (in its order if it has ORDER BY) on the tables that `seed`
    fills. Whatever the prediction is, the answer is True or False; a context or a reference that doesn't run, or that
    returns nothing on every filling, raises ExecutionError."""
    filling = best_filling(context, reference_sql, seed)
    if not filling.informative:
        raise ExecutionError(
            "The reference returns nothing, only NULL or only 0 however its tables are filled, so anything empty would "
            "be right: check its values, conditions and joins."
        )
    ordered = has_order(reference_sql)
    with closing(open_tables(context, filling.rows)) as connection:
        expected = answer_of(reference_sql, connection, ordered)
        answer = answer_of(predicted_sql, connection, ordered) if isinstance(predicted_sql, str) else None
    return answer is not None and answer == expected


@torch.inference_mode()
def answer_in_batches(
    model, tokenizer, prompts: Sequence[str], *, batch_size: int = 50, max_new_tokens: int = 256
) -> list[str]:
    """Greedy answers, special tokens left out, many prompts at a time: for counting right ones, not for timing."""
    answers: list[str] = []
    for start in range(0, len(prompts), batch_size):
        inputs = tokenizer(
            list(prompts[start : start + batch_size]),
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_token_type_ids=False,
        ).to(model.device)
        out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        answers += tokenizer.batch_decode(out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return answers


def right_answers(
    examples: Sequence[Example], answers: Sequence[str], extract: Callable[[str], str | None] = extract_sql
) -> list[bool]:
    """Whether each answer's SQL returns what the reference returns."""
    return [is_correct(extract(a), e.context, e.answer) for e, a in zip(examples, answers, strict=True)]
