"""Train a recurrent drafter on a frozen model: `python -m helpers.training.train_recurrent_drafter` (notebook 08).

It learns as Medusa's heads do, on the model's own answers to the training questions and the hidden states that made
them, which are computed once. At each depth it is given the right tokens before its guess (teacher forcing). Seeded; a
run that is killed resumes after its last epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from helpers.decoding.forward import eos_tokens
from helpers.errors import CourseError
from helpers.speculation.recurrent_drafter import RecurrentDrafter, save
from helpers.text_to_sql.dataset import training_examples
from helpers.training import script
from helpers.training.completions import IGNORED, examples_from
from helpers.training.medusa_targets import columns_of, targets, used_tokens
from helpers.training.processes import world_size
from helpers.training.self_distillation import MAX_NEW_TOKENS, Answer
from helpers.training.states_run import StatesRun


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
    """Hidden states (positions, hidden) in float32, in which the drafter adds its own up, and columns (positions, 1 +
    depth): of the token that each made, and of those after it; below 0 past an answer's end and where a token is none
    of `token_ids`."""
    hidden, labels = targets(answers, depth)
    made = torch.cat([torch.tensor(answer.tokens[:-1], dtype=torch.int64) for answer in answers])
    return hidden.float(), columns_of(torch.cat([made[:, None], labels], 1), token_ids)


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


class Run(StatesRun):
    """One training: the model, its answers, the drafter, and how far it has come."""

    def __init__(self, a: Arguments):
        super().__init__(a)
        self.identity |= {"dtype": str(self.dtype)}
        answers = self.own_answers("answers", training_examples(a.more_examples, a.seed)[: a.max_examples or None])
        checked = self.own_answers("validation", examples_from("course", "validation")[: a.eval_samples])
        token_ids = used_tokens(answers, eos_tokens(self.model), a.guessed_tokens)
        tables = self.model.get_output_embeddings().weight, self.model.get_input_embeddings().weight
        self.drafter = RecurrentDrafter(*(t.detach().float() for t in tables), token_ids, a.width)
        self.learned, self.checked = (
            tuple(t.to(self.device) for t in positions(part, a.depth, token_ids)) if part else None
            for part in (answers, checked)
        )
        self.begin(self.drafter, a.lr)

    def backward(self, where: torch.Tensor, done: float) -> float | None:
        with script.autocast(self.device, self.dtype):
            loss = loss_of(self.drafter, *(tensor[where] for tensor in self.learned), self.a.decay)
        if not loss.requires_grad:  # no token of the batch is one that it guesses
            return None
        loss.backward()
        return loss.item()

    def check(self) -> list[float] | None:
        return [round(share, 4) for share in accuracy_of(self.drafter, *self.checked)] if self.checked else None

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
    run.train(len(run.learned[0]) if run.learned else 0)
    for place in filter(None, (Path(a.output_dir) / "drafter", a.export)):
        run.export(place)
    return run


if __name__ == "__main__":
    script.run(train, Arguments, __doc__.splitlines()[0])
