"""What fine-tuning tells on its way: the loss, the share of validation answers that are right, and the time."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback

from helpers.files import write_whole
from helpers.text_to_sql.evaluate import answer_in_batches, right_answers
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.prompts import prompt_for


def by_kind(examples: Sequence[Example], right: Sequence[bool]) -> dict[str, str]:
    """ "join" -> "18 of 45", the kinds with most examples first."""
    counts = Counter(e.kind for e in examples)
    good = Counter(e.kind for e, is_right in zip(examples, right, strict=True) if is_right)
    return {kind: f"{good[kind]} of {count}" for kind, count in counts.most_common()}


class AccuracyCallback(TrainerCallback):
    """Prints the loss; after each epoch answers validation questions, and runs their SQL; counts the time.

    `seconds` is the time of training over all runs that took part, without the answering of questions.
    """

    def __init__(self, tokenizer, validation: Sequence[Example], checkpoints: Path):
        self.tokenizer, self.validation, self.file = tokenizer, validation, checkpoints / "seconds.json"
        self.seconds, self.began = 0.0, 0.0

    def on_train_begin(self, args, state, control, **more):
        with contextlib.suppress(OSError, ValueError):
            self.seconds = json.loads(self.file.read_text()) if state.global_step else 0.0
        self.began = time.perf_counter()

    def on_save(self, args, state, control, **more):
        self._count()
        if state.is_world_process_zero:
            write_whole(self.file, json.dumps(self.seconds))

    def on_train_end(self, args, state, control, **more):
        self._count()

    def on_log(self, args, state, control, logs=None, **more):
        step = state.global_step
        if state.is_world_process_zero and "loss" in logs and (step == 1 or step % 10 == 0):
            print(f"step {step}/{state.max_steps}  loss {logs['loss']:.4f}", flush=True)

    def on_epoch_end(self, args, state, control, model=None, **more):
        self._count()
        self.evaluate(model, state)
        self.began = time.perf_counter()

    def evaluate(self, model, state) -> None:
        """Answer the validation questions, once a step, in the first process alone."""
        evaluated = {entry["step"] for entry in state.log_history if "execution_accuracy" in entry}
        if not self.validation or state.global_step in evaluated or not state.is_world_process_zero:
            return
        model = getattr(model, "module", model)  # without its wrapper for several processes
        model.eval()
        prompts = [prompt_for(self.tokenizer, e) for e in self.validation]
        right = right_answers(self.validation, answer_in_batches(model, self.tokenizer, prompts))
        accuracy = sum(right) / len(right)
        model.train()
        entry = {
            "step": state.global_step,
            "execution_accuracy": accuracy,
            "right_by_kind": by_kind(self.validation, right),
        }
        state.log_history.append(entry)
        share = f"{accuracy:.1%} of {len(self.validation)} validation answers right"
        print(f"  step {state.global_step}: {share}", flush=True)

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds, self.began = self.seconds + now - self.began, now
