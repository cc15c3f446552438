"""Distil a draft model from its target: `python -m helpers.training.distil_draft` (notebook 07).

The target answers training questions, and the draft learns to say what the target says: on the target's own answers, at
each token its whole distribution (Hinton et al. 2015; for drafts Zhou et al., "DistillSpec", 2023). Right or wrong does
not matter, only whether the target agrees. Seeded; the answers are kept, and a run that is killed resumes.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from helpers import models
from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.text_to_sql.dataset import training_examples
from helpers.training import checkpoint, script
from helpers.training.completions import IGNORED, Encoded
from helpers.training.muon import muon_and_adam
from helpers.training.packing import collate, pack
from helpers.training.processes import average_gradients, rank, world_size
from helpers.training.self_distillation import answered


@dataclass
class Arguments(script.Arguments):
    """What a run depends on; `model_id` is the target."""

    output_dir: str = script.model_dir("distil_draft")
    start_from: str = "draft"  # a draft that knows the language: helpers.training.pretrain --model draft makes one
    more_examples: int = 0  # generated questions beside the training split's own
    epochs: int = 3
    batch_size: int = 8  # packed sequences in a step, of all processes together
    max_seq_length: int = 512
    muon_lr: float = 0.01
    adam_lr: float = 0.001
    warmup_steps: int = 20
    save_steps: int = 100


def loss_of(draft, target, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean Kullback-Leibler divergence from the target's next-token distributions
    to the draft's, over the answers."""
    # The position before each answer token foretells it.
    where = batch["labels"].roll(-1, dims=1) != IGNORED
    where[:, -1] = False
    inputs = {k: batch[k] for k in ("input_ids", "position_ids")}

    def log_probabilities(model) -> torch.Tensor:
        logits = model(**inputs, use_cache=False).logits
        return logits[where].float().log_softmax(-1)

    with torch.no_grad():
        wanted = log_probabilities(target)
    guessed = log_probabilities(draft)
    return F.kl_div(guessed, wanted, log_target=True, reduction="batchmean")


class Run:
    """One distillation: the models, the answers, and how far it has come."""

    def __init__(self, a: Arguments):
        self.a, self.device = a, script.device()
        torch.manual_seed(a.seed)
        self.dtype = a.compute_dtype(self.device)
        self.target, self.tokenizer = models.load(a.model_id, self.dtype, self.device)
        self.draft, _ = models.load(a.start_from, "float32", self.device)
        if self.draft.config.vocab_size != self.target.config.vocab_size:
            raise CourseError("Draft and target must have the same tokenizer: take a draft that was made for it.")
        self.optimizers = muon_and_adam(self.draft, a.muon_lr, a.adam_lr, self.dtype)
        self.peaks = [a.muon_lr, a.adam_lr]
        hashes = {"model_id": models.hash_of(a.model_id), "start_from": models.hash_of(a.start_from)}
        self.identity = a.without_places() | hashes
        del self.identity["save_steps"]
        self.step, self.seconds, self.losses = 0, 0.0, []
        self._load()

    def batches(self, encoded: Sequence[Encoded]) -> list[list[list[Encoded]]]:
        """The packed sequences of each step of all epochs, in the order of the seed."""
        a, rng, batches = self.a, random.Random(self.a.seed), []
        for _ in range(a.epochs):
            mixed = rng.sample(list(encoded), len(encoded))
            blocks = [mixed[i : i + 2000] for i in range(0, len(mixed), 2000)]  # packing sorts by length: not over all
            packed = [sequence for block in blocks for sequence in pack(block, a.max_seq_length)]
            rng.shuffle(packed)
            batches += [packed[i : i + a.batch_size] for i in range(0, len(packed), a.batch_size)]
        return batches

    def save(self) -> None:
        state = {
            "draft": self.draft.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "identity": self.identity,
        }
        checkpoint.write(self.a.checkpoints, state)

    def _load(self) -> None:
        state = checkpoint.read_own(self.a.checkpoints, self.identity, self.device)
        if state is None:
            return
        self.draft.load_state_dict(state["draft"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
        print(f"resuming at step {self.step}", flush=True)

    def export(self, place: str | Path) -> None:
        """The draft in bfloat16, its tokenizer, and card.json: how it was made and for which target."""
        draft = copy.deepcopy(self.draft).to(torch.bfloat16)  # RoPE's frequencies are not saved
        draft.save_pretrained(place)
        models.tokenizer_of(self.a.model_id).save_pretrained(place)
        card = {
            "parameters": sum(p.numel() for p in draft.parameters()),
            "minutes": round(self.seconds / 60, 1),
            "target": self.a.model_id,
            "target_hash": self.identity["model_id"],
            "divergence": self.divergence(),
            "before": models.card(self.a.start_from),
        }
        script.write_card(place, self.a, card)

    def divergence(self) -> float:
        """The mean divergence of the last 20 steps, in nats."""
        return sum(self.losses[-20:]) / max(1, len(self.losses[-20:]))


def distil(run: Run) -> Run:
    """Let the target answer the questions, then train the draft to the last step."""
    a = run.a
    questions = training_examples(a.more_examples, a.seed)
    cache = a.checkpoints / "answers.json"
    batches = run.batches(answered(run.target, run.tokenizer, questions, cache, run.identity["model_id"]))
    run.draft.train()
    for step in range(run.step, len(batches)):
        began = time.perf_counter()
        share = min(1.0, (step + 1) / a.warmup_steps) * (1 - step / len(batches))
        for optimizer, peak in zip(run.optimizers, run.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
        run.losses.append(round(_backward(run, batches[step]), 4))
        nn.utils.clip_grad_norm_(run.draft.parameters(), 1.0)
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        run.step, run.seconds = step + 1, run.seconds + time.perf_counter() - began
        last = run.step == len(batches)
        if rank() == 0 and (run.step % 20 == 0 or last):
            progress = f"step {run.step}/{len(batches)}  divergence {run.divergence():.4f}"
            print(f"{progress}  {run.seconds / 60:.1f} min", flush=True)
        if rank() == 0 and (run.step % a.save_steps == 0 or last):
            run.save()
    run.draft.eval()
    return run


def _backward(run: Run, packed: Sequence[Sequence[Encoded]]) -> float:
    """The loss of this process's share of the sequences; gradients are those of all processes' answer tokens."""
    loss, num_labels = torch.zeros(()), 0
    packed = packed[rank() :: world_size()]
    if packed:
        batch = {k: v.to(run.device) for k, v in collate(packed, run.tokenizer.pad_token_id).items()}
        num_labels = int((batch["labels"] != IGNORED).sum())
        with torch.autocast(run.device, run.dtype, enabled=run.dtype != torch.float32):
            loss = loss_of(run.draft, run.target, batch)
        loss.backward()
    average_gradients(run.draft.parameters(), torch.tensor([num_labels], device=run.device))
    return loss.item()


def train(a: Arguments) -> Run:
    """Distil, and leave the draft, its card and a report."""
    run = distil(Run(a))
    if rank() == 0:
        for place in filter(None, (Path(a.output_dir) / "draft", a.export)):
            run.export(place)
        report = {"seconds": run.seconds, "steps": run.step, "divergence": run.divergence()}
        write_whole(Path(a.output_dir) / "report.json", json.dumps(report) + "\n")
    return run


if __name__ == "__main__":
    script.run(train, Arguments, __doc__.splitlines()[0])
