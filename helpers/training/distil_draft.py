"""Distil a draft model from its target: `python -m helpers.training.distil_draft` (notebook 07).

The target answers training questions, and the draft learns to say what the target says: on the target's own answers, at
each token its whole distribution (Hinton et al. 2015; for drafts Zhou et al., "DistillSpec", 2023). Right or wrong does
not matter, only whether the target agrees. Seeded; the answers are kept, and a run that is killed resumes.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from helpers import files, models
from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.measuring.machine import describe_machine
from helpers.text_to_sql.dataset import training_examples
from helpers.text_to_sql.evaluate import answer_in_batches
from helpers.text_to_sql.generator import Example
from helpers.text_to_sql.prompts import prompt_for
from helpers.training import checkpoint
from helpers.training.completions import IGNORED, Encoded, with_labels
from helpers.training.muon import muon_and_adam
from helpers.training.packing import collate, pack


@dataclass
class Settings:
    """What a run depends on."""

    model_id: str = "fine-tuned"  # the target
    start_from: str = "draft"  # a draft that knows the language: helpers.training.pretrain --model draft makes one
    more: int = 0  # generated questions beside the training split's own
    epochs: int = 3
    rows: int = 8
    length: int = 512
    muon_lr: float = 0.01
    adam_lr: float = 0.001
    warmup: int = 20
    seed: int = 0


def answered(model, tokenizer, examples: Sequence[Example], kept: Path, made_by: str) -> list[Encoded]:
    """The target's own answers, token ids and labels; read from `kept` where the same target (its hash, `made_by`) has
    answered the same prompts already."""
    prompts = [prompt_for(tokenizer, e) for e in examples]
    before = json.loads(kept.read_text()) if kept.exists() else {}
    known: list[str] = before["answers"] if before.get("made_by") == made_by else []
    known = known[: len(prompts)] if before.get("prompts") == prompts[: len(known)] else []
    while len(known) < len(prompts):
        block = prompts[len(known) : len(known) + 1000]
        order = sorted(range(len(block)), key=lambda i: len(block[i]))  # prompts of one length need no padding
        said = answer_in_batches(model, tokenizer, [block[i] for i in order], max_new_tokens=100)
        known += [said[order.index(i)] for i in range(len(block))]
        write_whole(kept, json.dumps({"made_by": made_by, "prompts": prompts[: len(known)], "answers": known}))
        print(f"{len(known)} of {len(prompts)} questions answered", flush=True)
    rows = []
    for prompt, answer in zip(prompts, known):
        ids, said = (tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, answer))
        rows.append(Encoded(*with_labels(ids, said, tokenizer.eos_token_id)))
    return rows


def loss_of(draft, target, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean Kullback-Leibler divergence from the target's next-token distributions to the draft's, over the answers."""
    where = batch["labels"].roll(-1, dims=1) != IGNORED  # the position before each answer token foretells it
    where[:, -1] = False
    inputs = {k: batch[k] for k in ("input_ids", "position_ids")}

    def said(model) -> torch.Tensor:
        return model(**inputs, use_cache=False).logits[where].float().log_softmax(-1)

    with torch.no_grad():
        wanted = said(target)
    return F.kl_div(said(draft), wanted, log_target=True, reduction="batchmean")


class Run:
    """One distillation in `folder`: the models, the answers, and how far it has come."""

    def __init__(self, settings: Settings, folder: Path, device: str):
        self.settings, self.folder, self.device = settings, folder, device
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(settings.seed)
        half = device == "cuda" or describe_machine().bf16_is_native
        self.dtype = torch.bfloat16 if half else torch.float32
        self.target, self.tokenizer = models.load(settings.model_id, self.dtype, device)
        self.draft, _ = models.load(settings.start_from, "float32", device)
        if self.draft.config.vocab_size != self.target.config.vocab_size:
            raise CourseError("Draft and target must have the same tokenizer: take a draft that was made for it.")
        self.optimizers = muon_and_adam(self.draft, settings.muon_lr, settings.adam_lr, self.dtype)
        self.peaks = [settings.muon_lr, settings.adam_lr]
        self.identity = asdict(settings) | {
            "model_id": models.hash_of(settings.model_id), "start_from": models.hash_of(settings.start_from)
        }  # fmt: skip
        self.step, self.seconds, self.losses = 0, 0.0, []
        self.load()

    def batches(self, encoded: Sequence[Encoded]) -> list[list[list[Encoded]]]:
        """All batches of all epochs, in the order of the seed."""
        rng, found = random.Random(self.settings.seed), []
        for _ in range(self.settings.epochs):
            mixed = rng.sample(list(encoded), len(encoded))
            blocks = [mixed[i : i + 2000] for i in range(0, len(mixed), 2000)]  # packing sorts by length: not over all
            rows = [row for block in blocks for row in pack(block, self.settings.length)]
            rng.shuffle(rows)
            found += [rows[i : i + self.settings.rows] for i in range(0, len(rows), self.settings.rows)]
        return found

    def save(self) -> None:
        state = {"draft": self.draft.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers],
                 "step": self.step, "seconds": self.seconds, "losses": self.losses,
                 "identity": self.identity}  # fmt: skip
        checkpoint.write(self.folder, state)

    def load(self) -> None:
        state = checkpoint.read_own(self.folder, self.identity, self.device)
        if state is None:
            return
        self.draft.load_state_dict(state["draft"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
        print(f"resuming at step {self.step}", flush=True)

    def export(self, place: Path) -> None:
        """The draft in bfloat16, its tokenizer, and card.json: how it was made and for which target."""
        draft = copy.deepcopy(self.draft).to(torch.bfloat16)  # RoPE's frequencies are not saved
        draft.save_pretrained(place)
        models.tokenizer_of(self.settings.model_id).save_pretrained(place)
        card = {"parameters": sum(p.numel() for p in draft.parameters()), "minutes": round(self.seconds / 60, 1),
                "target": self.settings.model_id, "target_hash": self.identity["model_id"],
                "machine": asdict(describe_machine()), "torch": torch.__version__, "settings": asdict(self.settings),
                "divergence": self.recent(), "before": models.card(self.settings.start_from)}  # fmt: skip
        (place / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")

    def recent(self) -> float:
        """The divergence of the last steps, in nats."""
        return sum(self.losses[-20:]) / max(1, len(self.losses[-20:]))


def train(run: Run, save_every: int = 100) -> Run:
    """Answer the questions, then run to the last step."""
    s = run.settings
    encoded = answered(
        run.target,
        run.tokenizer,
        training_examples(s.more, s.seed),
        run.folder / "answers.json",
        run.identity["model_id"],
    )
    batches = run.batches(encoded)
    run.draft.train()
    for step in range(run.step, len(batches)):
        began = time.perf_counter()
        share = min(1.0, (step + 1) / s.warmup) * (1 - step / len(batches))
        for optimizer, peak in zip(run.optimizers, run.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
        batch = {k: v.to(run.device) for k, v in collate(batches[step], run.tokenizer.pad_token_id).items()}
        with torch.autocast(run.device, run.dtype, enabled=run.dtype != torch.float32):
            loss = loss_of(run.draft, run.target, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(run.draft.parameters(), 1.0)
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        run.step, run.seconds = step + 1, run.seconds + time.perf_counter() - began
        run.losses.append(round(loss.item(), 4))
        if run.step % 20 == 0 or run.step == len(batches):
            print(
                f"step {run.step}/{len(batches)}  divergence {run.recent():.4f}  {run.seconds / 60:.1f} min", flush=True
            )
        if run.step % save_every == 0 or run.step == len(batches):
            run.save()
    run.draft.eval()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--output_dir", type=Path, default=files.ROOT / "build" / "distil_draft")
    parser.add_argument("--export", type=Path, help="where else the draft goes, data/models/draft say")
    arguments = vars(parser.parse_args())
    folder, export = arguments.pop("output_dir"), arguments.pop("export")
    try:
        run = train(Run(Settings(**arguments), folder, "cuda" if torch.cuda.is_available() else "cpu"))
    except CourseError as error:
        sys.exit(str(error))
    for place in filter(None, (folder / "draft", export)):
        run.export(place)
    report = {"seconds": run.seconds, "steps": run.step, "divergence": run.recent()}
    write_whole(folder / "report.json", json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
