"""Epochs over a frozen model's states, from which heads and drafters learn (notebook 08).

The states are computed once; what is trained is small, so that an epoch takes a minute. Seeded; a run that is killed
resumes after its last epoch.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod

import torch

from helpers import models
from helpers.errors import CourseError
from helpers.text_to_sql.example import Example
from helpers.training import checkpoint, script
from helpers.training.processes import rank, smallest
from helpers.training.self_distillation import Answer, own_answers


class StatesRun(ABC):
    """One training: the frozen model, what is trained on its states, and how far it has come: `epoch`, `seconds`, the
    loss of each step, and the accuracy after each epoch.

    A subclass makes what is trained and calls `begin` with it; `a` has the fields lr, warmup_steps, epochs,
    batch_positions and max_new_tokens.
    """

    def __init__(self, a: script.Arguments):
        self.a, self.device, self.began = a, script.device(), time.perf_counter()
        torch.manual_seed(a.seed)
        self.dtype = a.compute_dtype(self.device)
        self.model, self.tokenizer = models.load(a.model_id, self.dtype, self.device)
        self.identity = a.without_places() | {"model_id": models.hash_of(a.model_id)}
        self.epoch, self.seconds, self.losses, self.accuracy = 0, 0.0, [], []

    def own_answers(self, name: str, examples: list[Example]) -> list[Answer]:
        """The model's own answers, kept beside the checkpoint."""
        place = self.a.checkpoints / name
        model_hash = self.identity["model_id"]
        return own_answers(self.model, self.tokenizer, examples, place, model_hash, self.a.max_new_tokens)

    def begin(self, trained: torch.nn.Module, lr: float) -> None:
        """Train this module's `trained()` parameters, from its last checkpoint on if there is one."""
        self.trained = trained
        self.optimizer = torch.optim.AdamW(trained.trained(), lr, (0.9, 0.95), weight_decay=0.0)
        self.lr = lr
        state = checkpoint.read_own(self.a.checkpoints, self.identity, self.device)
        if state is not None:
            self.trained.load_state_dict(state["trained"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.epoch, self.seconds = state["epoch"], state["seconds"]
            self.losses, self.accuracy = state["losses"], state["accuracy"]
            print(f"resuming after epoch {self.epoch}", flush=True)

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds + time.perf_counter() - self.began,
            "losses": self.losses,
            "accuracy": self.accuracy,
            "identity": self.identity,
        }
        checkpoint.write(self.a.checkpoints, state)

    @abstractmethod
    def backward(self, where: torch.Tensor, done: float) -> float | None:
        """Gradients of the loss at these positions, `done` being the share of the training that is; the loss, or None
        where there is nothing to learn from."""

    @abstractmethod
    def check(self) -> list | None:
        """The accuracy on validation answers, if there are any."""

    def lr_factor(self, done: float) -> float:
        """The learning rate by the share of the training that is done, over the largest: a cosine."""
        return 0.5 * (1 + math.cos(math.pi * done))

    def train(self, num_positions: int) -> None:
        """All epochs that are left, over so many positions of this process's."""
        a = self.a
        per_epoch = smallest(math.ceil(num_positions / a.batch_positions), self.device)  # all make as many steps
        if not per_epoch:
            raise CourseError("There is nothing to learn: no answer is longer than one token.")
        for epoch in range(self.epoch, a.epochs):
            order = torch.randperm(num_positions, generator=torch.Generator().manual_seed(1000 * a.seed + epoch))
            for i, where in enumerate(order.split(a.batch_positions)[:per_epoch]):
                self._step(where, epoch * per_epoch + i, a.epochs * per_epoch)
            self.epoch = epoch + 1
            if rank() == 0:
                with script.autocast(self.device, self.dtype):
                    checked = self.check()
                self.accuracy += [] if checked is None else [checked]
                loss = f"{self.losses[-1]:.3f}" if self.losses else "none"
                print(f"epoch {self.epoch}/{a.epochs}  loss {loss}  {self.in_words()}", flush=True)
                self.save()
        self.seconds += time.perf_counter() - self.began

    def in_words(self) -> str:
        """The last accuracy, for the log."""
        if not self.accuracy:
            return "not checked"
        return "right: " + ", ".join(f"{share:.0%}" for share in self.accuracy[-1])

    def _step(self, where: torch.Tensor, step: int, steps: int) -> None:
        warm, done = min(1.0, (step + 1) / max(1, self.a.warmup_steps)), step / steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * warm * self.lr_factor(done)
        loss = self.backward(where, done)
        if loss is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(round(loss, 4))
