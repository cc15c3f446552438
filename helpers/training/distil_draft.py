"""Distil a draft from its target: `python -m helpers.training.distil_draft` (notebook 07).

The draft is the target's own first layers with a small adapter (LoRA, Hu et al. 2021) and a final norm of its own. The
target answers training questions, and the draft learns to say what the target says: on the target's own answers, at
each token its whole distribution (Hinton et al. 2015; for drafts Zhou et al., "DistillSpec", 2023), which the states
that made the answers still hold. Right or wrong does not matter, only whether the target agrees. Seeded; the answers
are kept, and a run that is killed resumes.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from helpers import models
from helpers.decoding.forward import eos_tokens
from helpers.decoding.generate import generate
from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.models import first_layers
from helpers.models.fewer_tokens import with_tokens
from helpers.speculation.cost import acceptance_of, accepted_per_step
from helpers.speculation.draft_model import DraftModel
from helpers.text_to_sql.dataset import load_split, training_examples
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.prompts import prompt_for
from helpers.training import checkpoint, script
from helpers.training.completions import IGNORED, by_schema
from helpers.training.medusa_targets import columns_of, used_tokens
from helpers.training.packing import Tree, collate, pack, separates_branches, trees_of
from helpers.training.processes import average_gradients, rank, world_size
from helpers.training.self_distillation import Answer, EncodedAnswer, answered

NUM_DRAFTED = 4  # tokens, when the card says how many the target accepts


def answer_states(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """A model's own states (answer tokens, hidden) at the input of the lm_head: the position before a token predicts
    it, and prompts need no logits."""
    inputs = {name: batch[name] for name in ("input_ids", "position_ids", "attention_mask")}
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
    return hidden[:, :-1][batch["labels"][:, 1:] != IGNORED]


def loss_of(draft, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean Kullback-Leibler divergence from the target's next-token distributions
    to the draft's, over the answers and the tokens that the draft guesses, in nats."""
    lm_head = draft.get_output_embeddings()  # the target's own
    with torch.no_grad():
        wanted = lm_head(batch["states"]).float().log_softmax(-1)
    guessed = lm_head(answer_states(draft, batch)).float().log_softmax(-1)
    return F.kl_div(guessed, wanted, log_target=True, reduction="batchmean")


def cross_entropy(draft, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy with the tokens that the target chose, over the answers, in nats."""
    labels, token_ids = batch["labels"][:, 1:], getattr(draft, "token_ids", None)
    labels = labels[labels != IGNORED]
    logits = draft.get_output_embeddings()(answer_states(draft, batch))
    return F.cross_entropy(logits.float(), labels if token_ids is None else columns_of(labels, token_ids))


LOSSES = {"kl": loss_of, "ce": cross_entropy}


@dataclass
class Arguments(script.Arguments):
    """What a run depends on; `model_id` is the target."""

    output_dir: str = script.model_dir("distil_draft")
    layers: int = 3  # of the target's, the first ones
    loss: str = script.choice("kl", LOSSES)  # the target's whole distribution, or its chosen token alone
    vocabulary: str = script.choice("used", ("used", "all"))  # the draft guesses among tokens that answers use, or all
    guessed_tokens: int = 0  # of those that answers use only so many, the most frequent ones; 0: all of them
    lora_r: int = 64
    lora_alpha: float = 128.0
    max_examples: int = 0  # at most so many training questions; 0: all
    more_examples: int = 0  # generated questions beside the training split's own
    epochs: int = 3
    batch_size: int = 2  # rows in a step, of all processes together: some ten questions each
    max_seq_length: int = 768
    lr: float = 1e-3
    warmup_steps: int = 20
    save_steps: int = 100
    eval_samples: int = 60  # validation questions for the card's acceptance; 0 for none

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1 or self.batch_size < 1:
            raise CourseError("--epochs and --batch_size must be at least 1.")


class Run:
    """One distillation: the models, the answers, and how far it has come."""

    def __init__(self, a: Arguments):
        self.a, self.device = a, script.device()
        self.dtype = a.compute_dtype(self.device)
        self.target, self.tokenizer = models.load(a.model_id, self.dtype, self.device)
        if a.layers >= self.target.config.num_hidden_layers:
            trouble = f"The target has {self.target.config.num_hidden_layers} layers"
            raise CourseError(f"{trouble}, and a draft must be cheaper: give fewer than these with --layers.")
        torch.manual_seed(a.seed)
        self.draft = first_layers.begin(copy.deepcopy(self.target), a.layers, a.lora_r, a.lora_alpha)
        self.guessing = self.draft.get_base_model()  # with fewer tokens, once the answers are known
        self.trained = {name: p for name, p in self.draft.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.trained.values(), a.lr, (0.9, 0.95), weight_decay=0.0)
        self.identity = a.without_places() | {"model_id": models.hash_of(a.model_id)}
        for name in ("save_steps", "eval_samples"):  # they change nothing of the draft
            del self.identity[name]
        self.step, self.seconds, self.losses = 0, 0.0, []
        self._load()

    def answers(self, questions: Sequence[Example]) -> list[list[EncodedAnswer]]:
        """The target's own answers, in groups of questions about one schema."""
        place, model_hash = self.a.checkpoints / "answers", self.identity["model_id"]
        return by_schema(questions, answered(self.target, self.tokenizer, questions, place, model_hash))

    def batches(self, groups: Sequence[Sequence[EncodedAnswer]]) -> list[list[list[Tree]]]:
        """The rows of each step of all epochs, in the order of the seed."""
        length, size, batches = self.a.max_seq_length, self.a.batch_size, []
        rows, rng = pack(trees_of(groups, length), length), random.Random(self.a.seed)
        with script.autocast(self.device, self.dtype):
            if not separates_branches(self.target):
                rows = [[Tree((answer,))] for group in groups for answer in group]
        for _ in range(self.a.epochs):
            mixed = rng.sample(rows, len(rows))
            batches += [mixed[i : i + size] for i in range(0, len(mixed), size)]
        return batches

    def guess_among(self, answers: Sequence[EncodedAnswer]) -> None:
        """Let the draft guess only the tokens that these answers use."""
        written = [Answer(e.ids[e.labels.count(IGNORED) :], e.states) for e in answers]
        used = used_tokens(written, eos_tokens(self.target), self.a.guessed_tokens)
        self.guessing = with_tokens(self.draft.get_base_model(), used)

    def save(self) -> None:
        state = {
            "trained": {name: p.detach() for name, p in self.trained.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "identity": self.identity,
        }
        checkpoint.write(self.a.checkpoints, state)

    @torch.no_grad()
    def _load(self) -> None:
        state = checkpoint.read_own(self.a.checkpoints, self.identity, self.device)
        if state is None:
            return
        for name, p in self.trained.items():
            p.copy_(state["trained"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
        print(f"resuming at step {self.step}", flush=True)

    def export(self, folder: Path) -> dict[str, object]:
        """The draft and card.json: how it was made, for which target, and how much of it the target accepts."""
        token_ids = getattr(self.guessing, "token_ids", None)
        first_layers.save(self.draft, folder, self.a.model_id, self.identity["model_id"], token_ids)
        card = {
            "parameters": sum(p.numel() for p in self.trained.values()),
            "guessed_tokens": self.target.config.vocab_size if token_ids is None else len(token_ids),
            "minutes": round(self.seconds / 60, 1),
            "target": self.a.model_id,
            "target_hash": self.identity["model_id"],
            "steps": self.step,
            "loss": self.loss(),
        }
        card |= self.quality(folder) if self.a.eval_samples else {}
        script.write_card(folder, self.a, card)
        return card

    def loss(self) -> float:
        """The mean loss of the last 20 steps, in nats."""
        return sum(self.losses[-20:]) / max(1, len(self.losses[-20:]))

    def quality(self, folder: Path) -> dict[str, float]:
        """What the target accepts on validation questions when the draft in `folder` guesses 4 tokens ahead: in
        float32, where rounding decides nothing."""
        target, small = (models.load(name, "float32", self.device)[0] for name in (self.a.model_id, folder))
        proposer = DraftModel(first_layers.for_guessing(small, folder), target, count=NUM_DRAFTED)
        prompts = [prompt_for(self.tokenizer, e) for e in load_split("validation", limit=self.a.eval_samples)]
        answers = [generate(target, self.tokenizer, prompt, proposer=proposer) for prompt in prompts]
        return {"acceptance": acceptance_of(answers), "tokens_per_step": accepted_per_step(answers)}


def distil(run: Run) -> Run:
    """Let the target answer the questions, then train the draft to the last step."""
    a = run.a
    questions = training_examples(a.more_examples, a.seed)[: a.max_examples or None]
    groups = run.answers(questions)
    batches = run.batches(groups)
    if a.vocabulary == "used":
        run.guess_among([answer for group in groups for answer in group])
    run.draft.train()
    for step in range(run.step, len(batches)):
        began = time.perf_counter()
        for group in run.optimizer.param_groups:
            group["lr"] = a.lr * min(1.0, (step + 1) / max(1, a.warmup_steps)) * (1 - step / len(batches))
        run.losses.append(round(_backward(run, batches[step]), 4))
        nn.utils.clip_grad_norm_(run.trained.values(), 1.0)
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.step, run.seconds = step + 1, run.seconds + time.perf_counter() - began
        last = run.step == len(batches)
        if rank() == 0 and (run.step % 20 == 0 or last):
            progress = f"step {run.step}/{len(batches)}  loss {run.loss():.4f}"
            print(f"{progress}  {run.seconds / 60:.1f} min", flush=True)
        if rank() == 0 and (run.step % a.save_steps == 0 or last):
            run.save()
    run.draft.eval()
    return run


def _backward(run: Run, rows: Sequence[Sequence[Tree]]) -> float:
    """The loss of this process's share of the rows; gradients are those of all processes' answer tokens."""
    loss, num_labels = torch.zeros(()), 0
    rows = rows[rank() :: world_size()]
    if rows:
        states = torch.cat([answer.states for row in rows for tree in row for answer in tree.examples])
        batch = collate(rows, run.tokenizer.pad_token_id) | {"states": states}
        batch = {name: tensor.to(run.device) for name, tensor in batch.items()}
        num_labels = int((batch["labels"] != IGNORED).sum())
        with script.autocast(run.device, run.dtype):
            loss = LOSSES[run.a.loss](run.guessing, batch)
        loss.backward()
    average_gradients(run.trained.values(), torch.tensor([num_labels], device=run.device))
    return loss.item()


def train(a: Arguments) -> Run:
    """Distil, and leave the draft, its card and a report."""
    run = distil(Run(a))
    if rank() == 0:
        folder = Path(a.output_dir) / "draft"
        report = run.export(folder) | {"losses": run.losses}
        if a.export:
            shutil.copytree(folder, a.export, dirs_exist_ok=True)
        write_whole(Path(a.output_dir) / "report.json", json.dumps(report) + "\n")
    return run


if __name__ == "__main__":
    script.run(train, Arguments, __doc__.splitlines()[0])
