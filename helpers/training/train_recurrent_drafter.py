"""Train a recurrent drafter on a frozen model: `python -m helpers.training.train_recurrent_drafter` (notebook 08).

It learns as Medusa's heads do, on the model's own answers to the training questions and the hidden states that made
them, which are computed once. At each depth it is given the right tokens before its guess (teacher forcing). Seeded; a
run that is killed resumes after its last epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from helpers import models
from helpers.decoding.forward import eos_tokens
from helpers.errors import CourseError
from helpers.speculation.recurrent_drafter import RecurrentDrafter, save
from helpers.text_to_sql.dataset import training_examples
from helpers.text_to_sql.example import Example
from helpers.training import checkpoint, script
from helpers.training.completions import IGNORED, examples_from
from helpers.training.medusa_targets import columns_of, targets, used_tokens
from helpers.training.processes import world_size
from helpers.training.self_distillation import MAX_NEW_TOKENS, Answer, own_answers


@dataclass
class Arguments(script.Arguments):
    """What a run depends on; `model_id` is the frozen model."""

    output_dir: str = script.model_dir("train_recurrent_drafter")
    depth: int = 5  # guesses ahead that it learns
    width: int = 768  # of its hidden layer
    guessed_tokens: int = 0  # it guesses among so many of the answers' most frequent tokens; 0: among all
    decay: float = 0.8  # depth i counts decay ** (i - 1)
    lr: float = 2e-3  # cosine to 0
    warmup_steps: int = 20
    epochs: int = 6
    batch_positions: int = 512  # positions of answers in a step
    max_new_tokens: int = MAX_NEW_TOKENS  # of the model's own answers
    max_examples: int = 0  # at most so many training questions; 0: all
    more_examples: int = 0  # generated ones, beside the course's training split
    eval_samples: int = 450  # validation questions for its accuracy

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("depth", "width", "epochs", "batch_positions", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise CourseError(f"--{name} must be at least 1.")
        if self.max_new_tokens < 2:
            raise CourseError("A drafter learns what follows an answer's first token: give --max_new_tokens 2 or more.")
        if world_size() > 1:
            raise CourseError("A drafter is trained by one process: start it without torchrun.")


def positions(answers: Sequence[Answer], depth: int, token_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (positions, hidden), and columns (positions, 1 + depth): of the token that each made, and of those
    after it; below 0 past an answer's end and where a token is none of `token_ids`."""
    hidden, labels = targets(answers, depth)
    made = torch.cat([torch.tensor(answer.tokens[:-1], dtype=torch.int64) for answer in answers])
    return hidden, columns_of(torch.cat([made[:, None], labels], 1), token_ids)


def guesses(drafter: RecurrentDrafter, hidden: torch.Tensor, columns: torch.Tensor) -> Iterator[tuple]:
    """At each depth the logits (n, num_ids) after the right tokens, and the columns (n,) that they should guess."""
    yield from zip(drafter(hidden, columns[:, :-1].clamp(min=0)), columns[:, 1:].unbind(1), strict=True)


def loss_of(drafter: RecurrentDrafter, hidden: torch.Tensor, columns: torch.Tensor, decay: float) -> torch.Tensor:
    """The sum over depths of decay ** (i - 1) times the mean cross-entropy."""
    total = hidden.new_zeros((), dtype=torch.float32)
    for i, (logits, wanted) in enumerate(guesses(drafter, hidden, columns)):
        known = wanted >= 0
        if known.any():
            total = total + decay**i * F.cross_entropy(logits[known].float(), wanted[known])
    return total


@torch.inference_mode()
def accuracy_of(drafter: RecurrentDrafter, hidden: torch.Tensor, columns: torch.Tensor) -> list[float]:
    """At each depth the share of positions at which its best guess is right, all before it being known."""
    right, total = torch.zeros(columns.shape[1] - 1), torch.zeros(columns.shape[1] - 1)
    for states, part in zip(hidden.split(4096), columns.split(4096)):
        for i, (logits, wanted) in enumerate(guesses(drafter, states, part)):
            counted = wanted != IGNORED
            right[i] += (logits.argmax(-1) == wanted)[counted].sum().item()
            total[i] += counted.sum().item()
    return (right / total.clamp(min=1)).tolist()


class Run:
    """One training: the model, its answers, the drafter, and how far it has come."""

    def __init__(self, a: Arguments):
        self.a, self.device, self.began = a, script.device(), time.perf_counter()
        torch.manual_seed(a.seed)
        self.dtype = a.compute_dtype(self.device)
        self.model, self.tokenizer = models.load(a.model_id, self.dtype, self.device)
        self.identity = a.without_places() | {"model_id": models.hash_of(a.model_id), "dtype": str(self.dtype)}
        train = training_examples(a.more_examples, a.seed)[: a.max_examples or None]
        answers = self._answers("answers", train)
        checked = self._answers("validation", examples_from("course", "validation")[: a.eval_samples])
        token_ids = used_tokens(answers, eos_tokens(self.model), a.guessed_tokens)
        tables = self.model.get_output_embeddings().weight, self.model.get_input_embeddings().weight
        self.drafter = RecurrentDrafter(*(t.detach().float() for t in tables), token_ids, a.width)
        self.learned, self.checked = (
            tuple(t.to(self.device) for t in positions(part, a.depth, token_ids)) if part else None
            for part in (answers, checked)
        )
        self.optimizer = torch.optim.AdamW(self.drafter.trained(), a.lr, (0.9, 0.95), weight_decay=0.0)
        self.epoch, self.seconds, self.losses, self.accuracy = 0, 0.0, [], []
        self._load()

    def _answers(self, name: str, examples: list[Example]) -> list[Answer]:
        options = self.identity["model_id"], self.a.max_new_tokens
        found = own_answers(self.model, self.tokenizer, examples, self.a.checkpoints / name, *options)
        return [Answer(answer.tokens, answer.hidden.float()) for answer in found]

    def save(self) -> None:
        state = {
            "drafter": self.drafter.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds + time.perf_counter() - self.began,
            "losses": self.losses,
            "accuracy": self.accuracy,
            "identity": self.identity,
        }
        checkpoint.write(self.a.checkpoints, state)

    def _load(self) -> None:
        state = checkpoint.read_own(self.a.checkpoints, self.identity, self.device)
        if state is None:
            return
        self.drafter.load_state_dict(state["drafter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.losses, self.accuracy = state["losses"], state["accuracy"]
        print(f"resuming after epoch {self.epoch}", flush=True)

    def export(self, place: str | Path) -> None:
        """The drafter, and card.json: how it was made and for which model."""
        save(self.drafter, Path(place), self.a.model_id)
        card = {
            "target": self.a.model_id,
            "target_hash": self.identity["model_id"],
            "minutes": round(self.seconds / 60, 1),
            "parameters": sum(p.numel() for p in self.drafter.trained()),
            "guessed_tokens": len(self.drafter.token_ids),
            "losses": self.losses[:: max(1, len(self.losses) // 100)],
            "accuracy": self.accuracy,
        }
        script.write_card(place, self.a, card)


def train(a: Arguments) -> Run:
    """Train the drafter on the answers, and leave it with its card."""
    run = Run(a)
    hidden, columns = run.learned
    if not len(hidden):
        raise CourseError("There is nothing to learn for the drafter: no answer is longer than one token.")
    per_epoch = math.ceil(len(hidden) / a.batch_positions)
    for epoch in range(run.epoch, a.epochs):
        order = torch.randperm(len(hidden), generator=torch.Generator().manual_seed(1000 * a.seed + epoch))
        for i, where in enumerate(order.split(a.batch_positions)):
            _step(run, hidden[where], columns[where], epoch * per_epoch + i, a.epochs * per_epoch)
        run.epoch = epoch + 1
        if run.checked:
            with script.autocast(run.device, run.dtype):
                run.accuracy.append([round(share, 4) for share in accuracy_of(run.drafter, *run.checked)])
        print(f"epoch {run.epoch}/{a.epochs}  loss {run.losses[-1]:.3f}  right {run.accuracy[-1:]}", flush=True)
        run.save()
    run.seconds += time.perf_counter() - run.began
    for place in filter(None, (Path(a.output_dir) / "drafter", a.export)):
        run.export(place)
    return run


def _step(run: Run, hidden: torch.Tensor, columns: torch.Tensor, step: int, steps: int) -> None:
    a = run.a
    factor = min(1.0, (step + 1) / max(1, a.warmup_steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in run.optimizer.param_groups:
        group["lr"] = a.lr * factor
    with script.autocast(run.device, run.dtype):
        loss = loss_of(run.drafter, hidden, columns, a.decay)
    if not loss.requires_grad:  # no token of the batch is one that it guesses
        return
    loss.backward()
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.losses.append(round(loss.item(), 4))


if __name__ == "__main__":
    script.run(train, Arguments, __doc__.splitlines()[0])
