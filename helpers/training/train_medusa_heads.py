"""Train Medusa heads on a frozen model: `python -m helpers.training.train_medusa_heads` (notebook 08).

Medusa-1 (Cai et al. 2024): the model stays as it is, so its hidden states are computed once and the heads alone are
trained on them. Completions only, none of the prompt; by default the model's own answers to the questions
(self-distillation), since the heads are to guess what the model says, right or wrong. They guess only among the tokens
that these answers use, so that neither training nor decoding pays for the others. The options are those of AWS's script
of this name. Seeded; a run that is killed resumes after its last epoch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from helpers.decoding.forward import eos_tokens
from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.speculation.medusa_files import save
from helpers.speculation.medusa_heads import MedusaHeads, ReducedMedusaHeads
from helpers.text_to_sql.dataset import training_examples
from helpers.text_to_sql.example import Example
from helpers.training import script
from helpers.training.completions import IGNORED, encode, examples_from
from helpers.training.medusa_targets import columns_of, reference_answers, targets, used_tokens
from helpers.training.processes import average_gradients, rank, world_size
from helpers.training.self_distillation import MAX_NEW_TOKENS, Answer
from helpers.training.states_run import StatesRun

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
    vocabulary: str = script.choice("used", ("used", "all"))  # the heads guess among tokens that answers use, or all
    guessed_tokens: int = 0  # of those that answers use only so many, the most frequent ones; 0: all of them
    medusa_heads_coefficient: float = 1.0  # of the heads' loss; with a frozen model Adam hardly notices it
    medusa_decay_coefficient: float = 0.8  # head i counts decay ** i
    medusa_scheduler: str = script.choice("constant", LOSS_SCHEDULES)  # of the coefficient
    medusa_lr_multiplier: float = 1.0
    lr: float = 2e-3
    lr_scheduler_type: str = script.choice("cosine", LR_SCHEDULES)
    warmup_steps: int = 20
    epochs: int = 4
    batch_positions: int = 256  # positions of answers in a step, of each process
    answers: str = script.choice("own", ("own", "reference"))  # the model's own, or those of the data set
    max_new_tokens: int = MAX_NEW_TOKENS  # of the model's own answers; prose is longer than SQL
    train_dataset_path: str = script.channel("train")
    validation_dataset_path: str = script.channel("validation")
    max_examples: int = 0  # at most so many training questions; 0: all
    more_examples: int = 0  # generated ones, beside the course's training split
    eval_samples: int = 450  # validation questions for the heads' accuracy

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_positions", "medusa_num_heads", "medusa_num_layers", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise CourseError(f"--{name} must be at least 1.")
        if self.own_lm_heads and self.vocabulary == "used":
            raise CourseError("lm_heads of their own are over the whole vocabulary: add --vocabulary all.")
        if self.more_examples and self.train_dataset_path != "course":
            raise CourseError("--more_examples are the course's own: leave --train_dataset_path out.")


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
        known = wanted >= 0  # within the answer, and among the tokens that heads guess
        if known.any():
            loss = F.cross_entropy(logits[known].float(), wanted[known])
            total = total + decay**i * loss
    return total


@torch.inference_mode()
def accuracy_of(heads: MedusaHeads, hidden: torch.Tensor, labels: torch.Tensor, top: int = 5) -> list[list[float]]:
    """For each head the share of positions at which its `k` best guesses hold what came, k from 1 to `top`."""
    right, num_labels = torch.zeros(heads.count, top), torch.zeros(heads.count)
    for states, wanted in zip(hidden.split(4096), labels.split(4096)):
        for i, logits in enumerate(heads(states)):
            where = wanted[:, i] != IGNORED
            best = logits[where].topk(min(top, logits.shape[-1]), dim=-1).indices
            hits = F.pad(best == wanted[where, i, None], (0, top - best.shape[-1]))  # where there are fewer tokens
            right[i] += hits.sum(0).cumsum(0).cpu()
            num_labels[i] += where.sum().item()
    return (right / num_labels.clamp(min=1)[:, None]).tolist()


class Run(StatesRun):
    """One training: the model, its answers, the heads, and how far it has come.

    While they are trained, the heads' output is over the columns of `token_ids`, where they guess among these alone.
    """

    def __init__(self, a: Arguments):
        super().__init__(a)
        self.identity |= {"processes": world_size()}
        self.answers, self.validation = (self._answers(name, part) for name, part in self._questions().items())
        eos = eos_tokens(self.model)
        used = used_tokens(self.answers, eos, a.guessed_tokens) if a.vocabulary == "used" else None
        self.token_ids = used if used is None else used.to(self.device)
        self.heads = MedusaHeads(self._lm_head(), a.medusa_num_heads, a.medusa_num_layers, a.own_lm_heads)
        self.begin(self.heads, a.lr * a.medusa_lr_multiplier)

    def _questions(self) -> dict[str, list[Example]]:
        a = self.a
        course = a.train_dataset_path == "course"
        train = training_examples(a.more_examples, a.seed) if course else examples_from(a.train_dataset_path, "train")
        train = train[: a.max_examples or None]
        if len(train) < world_size():
            raise CourseError("There are fewer training questions than processes: look at --train_dataset_path.")
        validation = examples_from(a.validation_dataset_path, "validation") if a.eval_samples else []
        return {"answers": train, "validation": validation[: a.eval_samples]}

    def _answers(self, name: str, examples: list[Example]) -> list[Answer]:
        """The model's own answers, or the data set's."""
        a = self.a
        if a.answers == "reference":
            return reference_answers(self.model, [encode(e, self.tokenizer) for e in examples])
        return self.own_answers(name, examples)

    def _lm_head(self) -> torch.Tensor:
        """The model's rows of the tokens among which the heads guess, in float32."""
        lm_head = self.model.get_output_embeddings().weight.detach()
        return (lm_head if self.token_ids is None else lm_head[self.token_ids]).float()

    def targets(self, answers: Sequence[Answer]) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states and labels as the heads' output has them (columns), on the training's device."""
        hidden, labels = (t.to(self.device) for t in targets(answers, self.a.medusa_num_heads))
        return hidden, labels if self.token_ids is None else columns_of(labels, self.token_ids)

    def train_heads(self) -> Run:
        """All epochs that are left, on this process's share of the answers; the run."""
        if self.epoch < self.a.epochs:
            self.learned = self.targets(self.answers[rank() :: world_size()])
            self.checked = self.targets(self.validation) if self.validation and rank() == 0 else None
            self.train(len(self.learned[0]))
        return self

    def backward(self, where: torch.Tensor, done: float) -> float:
        a, (hidden, labels) = self.a, (tensor[where] for tensor in self.learned)
        with script.autocast(self.device, self.dtype):
            loss = loss_of(self.heads, hidden, labels, a.medusa_decay_coefficient)
        if loss.requires_grad:  # else no token of the batch is one that they guess, and another process may have some
            (loss * a.medusa_heads_coefficient * LOSS_SCHEDULES[a.medusa_scheduler](done)).backward()
        average_gradients(self.heads.trained(), (labels >= 0).sum(0))  # each head's loss is a mean of its own labels
        return loss.item()

    def check(self) -> list[list[float]] | None:
        return accuracy_of(self.heads, *self.checked) if self.checked else None

    def lr_factor(self, done: float) -> float:
        return LR_SCHEDULES[self.a.lr_scheduler_type](done)

    def in_words(self) -> str:
        if not self.accuracy:
            return "not checked"
        return "right (in the top 5): " + "  ".join(f"{top[0]:.0%} ({top[-1]:.0%})" for top in self.accuracy[-1])

    def finished(self) -> MedusaHeads:
        """The heads as decoders use them: what they guess are tokens of the model."""
        if self.token_ids is None:
            return self.heads
        lm_head = self.model.get_output_embeddings().weight.detach().float()
        heads = ReducedMedusaHeads(lm_head, self.token_ids, self.heads.count, self.heads.layers)
        heads.load_state_dict(self.heads.state_dict())
        return heads

    def export(self, place: str | Path, with_lm_head: bool) -> None:
        """The heads as vLLM and TGI read them, and card.json: how they were made and for which model."""
        save(self.finished(), Path(place), self.a.model_id, with_lm_head)
        card = {
            "target": self.a.model_id,
            "target_hash": self.identity["model_id"],
            "minutes": round(self.seconds / 60, 1),
            "parameters": sum(p.numel() for p in self.heads.trained()),
            "guessed_tokens": self.model.config.vocab_size if self.token_ids is None else len(self.token_ids),
            "accuracy": self.accuracy[-1:],
        }
        script.write_card(place, self.a, card)


def train(a: Arguments) -> Run:
    """Train the heads, and leave them, their card and a report."""
    run = Run(a).train_heads()
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
