"""Train Medusa heads on a frozen model: `python -m helpers.training.train_medusa_heads` (notebook 08).

Medusa-1 (Cai et al. 2024): the model stays as it is, so its hidden states are computed once and the heads alone are
trained on them. Completions only, none of the prompt; by default the model's own answers to the questions
(self-distillation), since the heads are to guess what the model says, right or wrong. The options are those of AWS's
script of this name. Seeded; a run that is killed resumes after its last epoch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from helpers import models
from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.speculation.medusa_files import save
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.text_to_sql.dataset import load_split, training_examples
from helpers.training import checkpoint, script
from helpers.training.completions import IGNORED, Encoded, encode, examples_from
from helpers.training.packing import collate, pack, separates_examples
from helpers.training.processes import average_gradients, rank, smallest, world_size
from helpers.training.self_distillation import answered

# Factors by the share of the training that is done.
LR_SCHEDULES = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}
LOSS_SCHEDULES = {
    "constant": lambda done: 1.0,
    "linear": lambda done: done,
    "sine": lambda done: math.sin(0.5 * math.pi * done),
}


@dataclass
class Arguments(script.Arguments):
    """What a run depends on; `model_id` is the frozen model."""

    output_dir: str = script.model_dir("train_medusa_heads")
    medusa_num_heads: int = 5
    medusa_num_layers: int = 1
    own_lm_heads: bool = False  # one for each head, begun as a copy of the model's; else all share the model's
    medusa_heads_coefficient: float = 1.0  # of the heads' loss; with a frozen model Adam hardly notices it
    medusa_decay_coefficient: float = 0.8  # head i counts decay ** i
    medusa_scheduler: str = script.choice("constant", LOSS_SCHEDULES)  # of the coefficient
    medusa_lr_multiplier: float = 1.0
    lr: float = 2e-3
    lr_scheduler_type: str = script.choice("cosine", LR_SCHEDULES)
    warmup_steps: int = 20
    epochs: int = 4
    batch_positions: int = 2048  # positions of answers in a step, of each process
    answers: str = script.choice("own", ("own", "reference"))  # the model's own, or those of the data set
    train_dataset_path: str = script.channel("train")
    max_examples: int = 0  # at most so many training questions; 0: all
    more_examples: int = 0  # generated ones, beside the course's training split
    eval_samples: int = 450  # validation questions for the heads' accuracy

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1 or self.batch_positions < 1:
            raise CourseError("--epochs and --batch_positions must be at least 1.")
        if self.more_examples and self.train_dataset_path != "course":
            raise CourseError("--more_examples are the course's own: leave --train_dataset_path out.")


@torch.no_grad()
def features(
    model, examples: Sequence[Encoded], heads: int, pad: int, length: int = 512, batch_size: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the heads learn from, computed once since the model is frozen.

    Returns:
        hidden states (positions, hidden) from which the model says the answers' tokens, and labels (positions, heads):
        what each head should guess there, `IGNORED` past the answer's end.
    """
    length = max(length, *(len(e.ids) for e in examples))
    packed = pack(examples, length) if separates_examples(model) else [[e] for e in examples]
    states, labels = [], []
    for start in range(0, len(packed), batch_size):
        batch = {k: v.to(model.device) for k, v in collate(packed[start : start + batch_size], pad).items()}
        inputs = {k: batch[k] for k in ("input_ids", "position_ids")}
        hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
        ahead = []
        for i in range(1, heads + 2):  # the model's own next token, and what each head guesses
            label = F.pad(batch["labels"][:, i:], (0, i), value=IGNORED)
            position = F.pad(batch["position_ids"][:, i:], (0, i), value=-1)
            ahead.append(label.masked_fill(position != batch["position_ids"] + i, IGNORED))  # not into the next example
        where = (ahead[0] != IGNORED) & (ahead[1] != IGNORED)
        states.append(hidden[where])
        labels.append(torch.stack([a[where] for a in ahead[1:]], -1))
    return torch.cat(states), torch.cat(labels)


def loss_of(
    heads: MedusaHeads,
    hidden: torch.Tensor,
    labels: torch.Tensor,
    decay: float,
) -> torch.Tensor:
    """The sum over heads of decay ** i times the mean cross-entropy of what head i
    should have guessed."""
    total = hidden.new_zeros((), dtype=torch.float32)
    for i, logits in enumerate(heads(hidden), 1):
        wanted = labels[:, i - 1]
        if (wanted != IGNORED).any():
            loss = F.cross_entropy(logits.float(), wanted, ignore_index=IGNORED)
            total = total + decay**i * loss
    return total


@torch.inference_mode()
def accuracy_of(heads: MedusaHeads, hidden: torch.Tensor, labels: torch.Tensor, top: int = 5) -> list[list[float]]:
    """For each head the share of positions at which its `k` best guesses hold what came, k from 1 to `top`."""
    right, num_labels = torch.zeros(heads.count, top), torch.zeros(heads.count)
    for states, wanted in zip(hidden.split(4096), labels.split(4096)):
        for i, logits in enumerate(heads(states)):
            where = wanted[:, i] != IGNORED
            hits = logits[where].topk(top, dim=-1).indices == wanted[where, i, None]
            right[i] += hits.sum(0).cumsum(0).cpu()
            num_labels[i] += where.sum().item()
    return (right / num_labels.clamp(min=1)[:, None]).tolist()


class Run:
    """One training: the model, the heads, and how far it has come."""

    def __init__(self, a: Arguments):
        self.a, self.device = a, script.device()
        torch.manual_seed(a.seed)
        self.began = time.perf_counter()
        self.dtype = a.compute_dtype(self.device)
        self.model, self.tokenizer = models.load(a.model_id, self.dtype, self.device)
        lm_head = self.model.get_output_embeddings().weight.float()
        self.heads = MedusaHeads(lm_head, a.medusa_num_heads, a.medusa_num_layers, a.own_lm_heads)
        lr = a.lr * a.medusa_lr_multiplier
        self.optimizer = torch.optim.AdamW(self.heads.trained(), lr, (0.9, 0.95), weight_decay=0.0)
        self.identity = a.without_places() | {"model_id": models.hash_of(a.model_id), "processes": world_size()}
        self.epoch, self.seconds, self.losses, self.accuracy = 0, 0.0, [], []
        self._load()

    def examples(self) -> tuple[list[Encoded], list[Encoded]]:
        """What is learned from, and the validation answers: the model's own, or the data set's."""
        a = self.a
        course = a.train_dataset_path == "course"
        train = training_examples(a.more_examples, a.seed) if course else examples_from(a.train_dataset_path, "train")
        parts = {"answers": train[: a.max_examples or None], "validation": load_split("validation")[: a.eval_samples]}
        if len(parts["answers"]) < world_size():
            raise CourseError("There are fewer training questions than processes: look at --train_dataset_path.")
        if a.answers == "reference":
            return tuple([encode(e, self.tokenizer) for e in part] for part in parts.values())
        target, model_hash = (self.model, self.tokenizer), self.identity["model_id"]
        return tuple(answered(*target, part, a.checkpoints / f"{n}.json", model_hash) for n, part in parts.items())

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)

    def save(self) -> None:
        state = {
            "heads": self.heads.state_dict(),
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
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.losses, self.accuracy = state["losses"], state["accuracy"]
        print(f"resuming after epoch {self.epoch}", flush=True)

    def export(self, place: str | Path, with_lm_head: bool) -> None:
        """The heads as vLLM and TGI read them, and card.json: how they were made and for which model."""
        save(self.heads, Path(place), self.a.model_id, with_lm_head)
        card = {
            "target": self.a.model_id,
            "target_hash": self.identity["model_id"],
            "minutes": round(self.seconds / 60, 1),
            "parameters": sum(p.numel() for p in self.heads.trained()),
            "accuracy": self.accuracy[-1:],
        }
        script.write_card(place, self.a, card)


def train_heads(run: Run) -> Run:
    """Compute the hidden states once, then train the heads to the last epoch."""
    a = run.a
    if run.epoch >= a.epochs:  # it was killed after its last epoch
        return run
    examples, validation = run.examples()
    pad = run.tokenizer.pad_token_id
    hidden, labels = features(run.model, examples[rank() :: world_size()], a.medusa_num_heads, pad)
    evaluated = validation and rank() == 0
    checked = features(run.model, validation, a.medusa_num_heads, pad) if evaluated else None
    per_epoch = smallest(math.ceil(len(hidden) / a.batch_positions), run.device)  # all make as many steps
    if not per_epoch:
        raise CourseError("There is nothing to learn for the heads: no answer is longer than one token.")
    for epoch in range(run.epoch, a.epochs):
        order = torch.randperm(len(hidden), generator=torch.Generator().manual_seed(1000 * a.seed + epoch))
        for i, where in enumerate(order.split(a.batch_positions)[:per_epoch]):
            _step(run, hidden[where], labels[where], epoch * per_epoch + i, a.epochs * per_epoch)
        run.epoch = epoch + 1
        if checked:
            with run.autocast():
                run.accuracy.append(accuracy_of(run.heads, *checked))
        if rank() == 0:
            top = run.accuracy[-1] if checked else []
            shares = "  ".join(f"{i}: {share[0]:.2f} ({share[-1]:.2f})" for i, share in enumerate(top, 1))
            print(f"epoch {run.epoch}/{a.epochs}  loss {run.losses[-1]:.3f}  head, top 1 (top 5): {shares}", flush=True)
            run.save()
    run.seconds += time.perf_counter() - run.began
    return run


def _step(run: Run, hidden: torch.Tensor, labels: torch.Tensor, step: int, steps: int) -> None:
    """One step of the optimizer, on this process's positions and those of the others."""
    a, done = run.a, step / steps
    warm = min(1.0, (step + 1) / max(1, a.warmup_steps))
    for group in run.optimizer.param_groups:
        group["lr"] = a.lr * a.medusa_lr_multiplier * warm * LR_SCHEDULES[a.lr_scheduler_type](done)
    with run.autocast():
        loss = loss_of(run.heads, hidden, labels, a.medusa_decay_coefficient)
    (loss * a.medusa_heads_coefficient * LOSS_SCHEDULES[a.medusa_scheduler](done)).backward()
    average_gradients(run.heads.trained(), (labels != IGNORED).sum(0))  # each head's loss is a mean of its own labels
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.losses.append(round(loss.item(), 4))


def train(a: Arguments) -> Run:
    """Train the heads, and leave them, their card and a report."""
    run = train_heads(Run(a))
    if rank() == 0:
        run.export(Path(a.output_dir) / "heads", with_lm_head=True)
        if a.export:
            run.export(a.export, with_lm_head=False)
        report = {"seconds": run.seconds, "losses": run.losses, "accuracy": run.accuracy}
        report["arguments"] = a.without_places()
        write_whole(Path(a.output_dir) / "report.json", json.dumps(report) + "\n")
    return run


if __name__ == "__main__":
    script.run(train, Arguments, __doc__.splitlines()[0])
