"""Train Medusa heads on a frozen model: `python -m helpers.training.train_medusa_heads` (notebook 08).

Medusa-1 (Cai et al. 2024): the model stays as it is, so its hidden states are computed once and the heads alone are
trained on them. Completions only, none of the prompt; by default the model's own answers to the questions
(self-distillation), since the heads are to guess what the model says, right or wrong. The knobs are those of AWS's
script of this name. It runs alike from a notebook, the shell, torchrun (one process a device), and in a SageMaker
training job. Seeded; a run that is killed resumes after its last epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn import functional as F

from helpers import models
from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.measuring.machine import describe_machine
from helpers.speculation.medusa_files import save
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.text_to_sql.dataset import load_split, training_examples
from helpers.training import checkpoint
from helpers.training.completions import IGNORED, Encoded, encode, examples_from
from helpers.training.distil_draft import answered
from helpers.training.fine_tune_llm import separates_examples, truth
from helpers.training.packing import collate, pack

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
class Settings:
    """What a run depends on."""

    model_id: str = "fine-tuned"  # the frozen model: the course's, a folder, or a model of the Hub
    medusa_num_heads: int = 5
    medusa_num_layers: int = 1
    own_lm_heads: bool = False  # one for each head, begun as a copy of the model's; else all share the model's
    medusa_heads_coefficient: float = 1.0  # of the heads' loss; with a frozen model Adam hardly notices it
    medusa_decay_coefficient: float = 0.8  # head i counts decay ** i
    medusa_scheduler: str = "constant"  # of the coefficient: constant, linear, sine
    medusa_lr_multiplier: float = 1.0
    lr: float = 2e-3
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 20
    epochs: int = 4
    batch_positions: int = 2048  # positions of answers in a step, of each process
    answers: str = "own"  # the model's own, or "reference": those of the data set
    train_dataset_path: str = os.environ.get("SM_CHANNEL_TRAIN", "course")
    most: int = 0  # so many questions at most; 0: all
    more_examples: int = 0  # generated ones, beside the course's training split
    eval_samples: int = 450  # validation questions for the heads' accuracy
    seed: int = 0


@torch.no_grad()
def features(model, examples: Sequence[Encoded], heads: int, pad: int, length: int = 512,
             rows: int = 8) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """What the heads learn from, computed once since the model is frozen.

    Returns:
        hidden states (positions, hidden) from which the model says the answers' tokens, and labels (positions, heads):
        what each head should guess there, `IGNORED` past the answer's end.
    """
    length = max(length, *(len(e.ids) for e in examples))
    packed = pack(examples, length) if separates_examples(model) else [[e] for e in examples]
    states, labels = [], []
    for start in range(0, len(packed), rows):
        batch = {k: v.to(model.device) for k, v in collate(packed[start : start + rows], pad).items()}
        hidden = model.base_model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        ).last_hidden_state
        ahead = []
        for i in range(1, heads + 2):  # the model's own next token, and what each head guesses
            label = F.pad(batch["labels"][:, i:], (0, i), value=IGNORED)
            place = F.pad(batch["position_ids"][:, i:], (0, i), value=-1)
            ahead.append(label.masked_fill(place != batch["position_ids"] + i, IGNORED))  # not into the next example
        where = (ahead[0] != IGNORED) & (ahead[1] != IGNORED)
        states.append(hidden[where])
        labels.append(torch.stack([a[where] for a in ahead[1:]], -1))
    return torch.cat(states), torch.cat(labels)


def loss_of(heads: MedusaHeads, hidden: torch.Tensor, labels: torch.Tensor, decay: float) -> torch.Tensor:
    """The sum over heads of decay ** i times the mean cross-entropy of what head i should have guessed."""
    total = hidden.new_zeros((), dtype=torch.float32)
    for i, logits in enumerate(heads(hidden), 1):
        if (labels[:, i - 1] != IGNORED).any():
            total = total + decay**i * F.cross_entropy(logits.float(), labels[:, i - 1], ignore_index=IGNORED)
    return total


@torch.inference_mode()
def accuracy_of(heads: MedusaHeads, hidden: torch.Tensor, labels: torch.Tensor, most: int = 5) -> list[list[float]]:
    """For each head the share of positions at which its `k` best guesses hold what came, k from 1 to `most`."""
    right, seen = torch.zeros(heads.count, most), torch.zeros(heads.count)
    for h, wanted in zip(hidden.split(4096), labels.split(4096)):
        for i, logits in enumerate(heads(h)):
            known = wanted[:, i] != IGNORED
            hit = logits[known].topk(most, dim=-1).indices == wanted[known, i, None]
            right[i] += hit.sum(0).cumsum(0).cpu()
            seen[i] += known.sum().item()
    return (right / seen.clamp(min=1)[:, None]).tolist()


class Run:
    """One training in `folder`: the model, the heads, and how far it has come."""

    def __init__(self, settings: Settings, folder: Path, device: str):
        self.settings, self.folder, self.device = settings, folder, device
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        check(settings)
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(settings.seed)
        self.began = time.perf_counter()
        half = device != "cpu" or describe_machine().bf16_is_native
        self.dtype = torch.bfloat16 if half else torch.float32
        self.model, self.tokenizer = models.load(settings.model_id, self.dtype, device)
        lm_head = self.model.get_output_embeddings().weight.float()
        shape = settings.medusa_num_heads, settings.medusa_num_layers, settings.own_lm_heads
        self.heads = MedusaHeads(lm_head, *shape)
        lr = settings.lr * settings.medusa_lr_multiplier
        self.optimizer = torch.optim.AdamW(self.heads.trained(), lr, (0.9, 0.95), weight_decay=0.0)
        self.identity = asdict(settings) | {"model_id": models.hash_of(settings.model_id), "processes": self.world}
        self.epoch, self.seconds, self.losses, self.accuracy = 0, 0.0, [], []
        self._load()

    def examples(self) -> tuple[list[Encoded], list[Encoded]]:
        """What is learned from, and the validation answers: the model's own, or the data set's."""
        s = self.settings
        course = s.train_dataset_path == "course"
        train = training_examples(s.more_examples, s.seed) if course else examples_from(s.train_dataset_path, "train")
        train, validation = train[: s.most or None], load_split("validation")[: s.eval_samples]
        if s.answers == "reference":
            return tuple([encode(e, self.tokenizer) for e in part] for part in (train, validation))
        told, target = (self.model, self.tokenizer), self.identity["model_id"]
        if self.rank:
            dist.barrier()  # until the first process has answered: the others read
            validation = []  # and only it tells how good the heads are
        found = answered(*told, train, self.folder / "answers.json", target)
        if self.world > 1 and not self.rank:
            dist.barrier()
        return found, answered(*told, validation, self.folder / "validation.json", target)

    def save(self) -> None:
        state = {"heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict(), "epoch": self.epoch,
                 "seconds": self.seconds + time.perf_counter() - self.began, "losses": self.losses,
                 "accuracy": self.accuracy, "identity": self.identity}  # fmt: skip
        checkpoint.write(self.folder, state)

    def _load(self) -> None:
        state = checkpoint.read_own(self.folder, self.identity, self.device)
        if state is None:
            return
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.losses, self.accuracy = state["losses"], state["accuracy"]
        print(f"resuming after epoch {self.epoch}", flush=True)

    def export(self, place: Path, with_lm_head: bool) -> None:
        """The heads as vLLM and TGI read them, and card.json: how they were made and for which model."""
        save(self.heads, place, self.settings.model_id, with_lm_head)
        card = {"target": self.settings.model_id, "target_hash": self.identity["model_id"],
                "minutes": round(self.seconds / 60, 1), "parameters": sum(p.numel() for p in self.heads.trained()),
                "machine": asdict(describe_machine()), "torch": torch.__version__,
                "settings": asdict(self.settings), "accuracy": self.accuracy[-1:]}  # fmt: skip
        (place / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")

    def report(self) -> dict:
        return {"seconds": self.seconds, "losses": self.losses, "accuracy": self.accuracy,
                "settings": asdict(self.settings)}  # fmt: skip


def train(run: Run) -> Run:
    """Compute the hidden states once, then train the heads to the last epoch."""
    s = run.settings
    if run.epoch >= s.epochs:  # it was killed after its last epoch
        return run
    train_set, validation = run.examples()
    pad = run.tokenizer.pad_token_id
    hidden, labels = features(run.model, train_set[run.rank :: run.world], s.medusa_num_heads, pad)
    checked = features(run.model, validation, s.medusa_num_heads, pad) if validation and run.rank == 0 else None
    per_epoch = _least(-(-len(hidden) // s.batch_positions), run)
    for epoch in range(run.epoch, s.epochs):
        order = torch.randperm(len(hidden), generator=torch.Generator().manual_seed(1000 * s.seed + epoch))
        for i, where in enumerate(order.split(s.batch_positions)[:per_epoch]):
            step = epoch * per_epoch + i
            done = step / (s.epochs * per_epoch)
            warm = min(1.0, (step + 1) / max(1, s.warmup_steps))
            for group in run.optimizer.param_groups:
                group["lr"] = s.lr * s.medusa_lr_multiplier * warm * LR_SCHEDULES[s.lr_scheduler_type](done)
            with torch.autocast(run.device, run.dtype, enabled=run.dtype != torch.float32):
                loss = loss_of(run.heads, hidden[where], labels[where], s.medusa_decay_coefficient)
            (loss * s.medusa_heads_coefficient * LOSS_SCHEDULES[s.medusa_scheduler](done)).backward()
            _average_gradients(run)
            run.optimizer.step()
            run.optimizer.zero_grad()
            run.losses.append(round(loss.item(), 4))
        run.epoch = epoch + 1
        if checked:
            with torch.autocast(run.device, run.dtype, enabled=run.dtype != torch.float32):
                run.accuracy.append(accuracy_of(run.heads, *checked))
        if run.rank == 0:
            top = run.accuracy[-1] if checked else []
            told = "  ".join(f"{i}: {a[0]:.2f} ({a[-1]:.2f})" for i, a in enumerate(top, 1))
            print(f"epoch {run.epoch}/{s.epochs}  loss {run.losses[-1]:.3f}  head, top 1 (top 5): {told}", flush=True)
            run.save()
    run.seconds += time.perf_counter() - run.began
    return run


def _least(count: int, run: Run) -> int:
    """The least of all processes' counts: each makes as many steps as the others."""
    if run.world == 1:
        return count
    found = torch.tensor(count, device=run.device)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)


def _average_gradients(run: Run) -> None:
    if run.world > 1:
        for p in run.heads.trained():
            dist.all_reduce(p.grad)
            p.grad /= run.world


def check(s: Settings) -> None:
    """CourseError for a knob that is set to something unknown."""
    for name, value, known in (("lr_scheduler_type", s.lr_scheduler_type, LR_SCHEDULES),
                               ("medusa_scheduler", s.medusa_scheduler, LOSS_SCHEDULES),
                               ("answers", s.answers, ("own", "reference"))):  # fmt: skip
        if value not in known:
            raise CourseError(f"--{name} {value} is unknown; there are {', '.join(known)}.")
    if s.epochs < 1 or s.batch_positions < 1:
        raise CourseError("--epochs and --batch_positions must be at least 1.")
    if s.more_examples and s.train_dataset_path != "course":
        raise CourseError("--more_examples are the course's own: leave --train_dataset_path out.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in asdict(Settings()).items():
        kind = truth if isinstance(value, bool) else type(value)
        parser.add_argument(f"--{name}", type=kind, default=value)
    folder = os.environ.get("SM_MODEL_DIR", "build/train_medusa_heads")
    parser.add_argument("--output_dir", type=Path, default=Path(folder))
    parser.add_argument("--checkpoint_dir", type=Path, help="where answers and checkpoint go, if not there",
                        default="/opt/ml/checkpoints" if "SM_MODEL_DIR" in os.environ else None)  # fmt: skip
    parser.add_argument("--export", type=Path, help="where else the heads go, without the lm_head: data/models/medusa")
    arguments = vars(parser.parse_args())
    folder, export, kept = (arguments.pop(name) for name in ("output_dir", "export", "checkpoint_dir"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        longest = timedelta(hours=6)  # the others wait while the first process answers the questions
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=longest)
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    try:
        run = train(Run(Settings(**arguments), kept or folder, device))
    except CourseError as error:
        sys.exit(str(error))
    if run.rank == 0:
        run.export(folder / "heads", with_lm_head=True)
        if export:
            run.export(export, with_lm_head=False)
        write_whole(folder / "report.json", json.dumps(run.report()) + "\n")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
