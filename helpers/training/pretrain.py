"""Trains the course's base and draft models from scratch on generated examples: `python -m helpers.training.pretrain`.

A Llama of few wide layers learns to answer in prose with the SQL inside. What made it fast enough for a laptop:
packing (packing.py), Muon (muon.py), a compiled backbone, invented names from the first step. The auxiliary multi-token
loss (Gloeckle et al. 2024) makes hidden states that know more of what comes, which Medusa heads need later.
Nothing seems to happen for a quarter of an hour; then copying appears and the error halves in minutes.

Seeded; a run that is killed resumes from its last checkpoint with the same data, as if nothing had happened.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from helpers import models
from helpers.errors import CourseError
from helpers.kernels import torch_compile
from helpers.measuring.machine import describe_machine
from helpers.text_to_sql.dataset import fresh_examples
from helpers.text_to_sql.evaluate import answer_in_batches, right_answers
from helpers.text_to_sql.prompts import ASSISTANT, BARE, chatty_answer, extract_sql, prompt_text
from helpers.text_to_sql.tokenizer import build_tokenizer, training_mix
from helpers.training import checkpoint
from helpers.training.group_packing import Batch, Lesson, make_batch
from helpers.training.muon import muon_and_adam

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    "base": dict(hidden_size=512, intermediate_size=1024, num_hidden_layers=5),
    "draft": dict(hidden_size=512, intermediate_size=1024, num_hidden_layers=2),  # fewer could not learn to copy
}


@dataclass
class Settings:
    """What a run depends on; saved beside the checkpoint, and the same again when it resumes."""

    model: str = "base"
    start_from: str = ""  # a folder with a model to go on from, its tokenizer included: give another seed, too
    steps: int = 1800
    rows: int = 12
    length: int = 512
    seed: int = 0
    muon_lr: float = 0.02
    adam_lr: float = 0.003
    warmup: int = 40
    decay_share: float = 0.35  # of the steps, at the end: the learning rate falls to zero
    bare_from: float = 0.8  # share of bare SQL answers: cheap lessons first, the course's own prose last
    bare_to: float = 0.25
    hard_share: float = 0.0  # and the two below: see packing.Lesson
    question_weight: float = 0.1
    prose_weight: float = 1.0
    ahead: int = 5  # tokens that the auxiliary heads look ahead
    ahead_weight: float = 0.3
    ahead_from: float = 0.4  # share of the steps after which the auxiliary loss joins
    eval_every: int = 100
    save_every: int = 50


class AheadHeads(nn.Module):
    """Head i guesses token t+2+i from the hidden state at t, through a residual block and the model's own lm_head."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(heads))
        for block in self.blocks:
            nn.init.zeros_(block.weight), nn.init.zeros_(block.bias)

    def loss(self, hidden: torch.Tensor, lm_head: nn.Linear, batch: Batch, keep: float = 0.3) -> torch.Tensor:
        """Mean cross-entropy over a random `keep` of the positions (rows, length) that weigh in full: the SQL, and its
        prose where `Lesson.prose_weight` is 1."""
        chosen = (batch.weights == 1.0) & (torch.rand_like(batch.weights) < keep)
        total = hidden.new_zeros(())
        for i, block in enumerate(self.blocks, 1):
            labels = F.pad(batch.labels[:, i:], (0, i), value=-100)
            same = F.pad(batch.positions[:, i:], (0, i), value=-1) == batch.positions + i  # not into the next question
            where = chosen & same & (labels != -100)
            state = hidden[where]
            total = total + F.cross_entropy(lm_head(state + F.silu(block(state))).float(), labels[where])
        return total / len(self.blocks)


@torch.no_grad()
def inherit(draft: LlamaForCausalLM, base: LlamaForCausalLM, batch: Batch) -> tuple[int, ...]:
    """Give the draft the base's embeddings, last norm and, of its layers, those that together lose least on `batch`.

    Returns the layers that were taken: the draft starts hundreds of steps ahead of random weights.
    """
    draft.load_state_dict(base.state_dict(), strict=False)
    best, chosen = math.inf, ()
    for taken in itertools.combinations(range(base.config.num_hidden_layers), draft.config.num_hidden_layers):
        for here, there in enumerate(taken):
            draft.model.layers[here].load_state_dict(base.model.layers[there].state_dict())
        hidden = draft.model(batch.ids, attention_mask=batch.mask, position_ids=batch.positions).last_hidden_state
        loss = F.cross_entropy(draft.lm_head(hidden).flatten(0, 1), batch.labels.flatten()).item()
        if loss < best:
            best, chosen, state = loss, taken, copy.deepcopy(draft.state_dict())
    draft.load_state_dict(state)
    return chosen


@torch.no_grad()
def deepen(model: LlamaForCausalLM, base: LlamaForCausalLM) -> None:
    """Give `model` the base's weights; what it has more layers than the base, in the middle, begins as copies of the
    layer before that add nothing yet (Wu et al. 2024, LLaMA Pro): the same function, with more to learn."""
    more = model.config.num_hidden_layers - base.config.num_hidden_layers
    if more < 0 or model.config.hidden_size != base.config.hidden_size:
        raise CourseError("Training goes on from a model of the same width and no more layers: give another one.")
    middle = base.config.num_hidden_layers // 2
    model.load_state_dict(base.state_dict(), strict=False)
    for here in range(model.config.num_hidden_layers):
        there = here if here <= middle else max(middle, here - more)
        model.model.layers[here].load_state_dict(base.model.layers[there].state_dict())
        if middle < here <= middle + more:
            nn.init.zeros_(model.model.layers[here].self_attn.o_proj.weight)
            nn.init.zeros_(model.model.layers[here].mlp.down_proj.weight)


class HalfCopy:
    """A bf16 copy of fp32 `master` that computes; the master keeps the small updates that bf16 would round away."""

    def __init__(self, master: nn.Module):
        self.master, self.copy = master, copy.deepcopy(master).to(torch.bfloat16)
        for half, full in zip(self.copy.modules(), master.modules(), strict=True):
            if hasattr(full, "inv_freq"):
                half.inv_freq = full.inv_freq.clone()  # RoPE's frequencies must not be rounded

    @torch.no_grad()
    def refresh(self) -> None:
        """The master's weights, rounded."""
        for half, full in zip(self.copy.parameters(), self.master.parameters(), strict=True):
            half.copy_(full)

    def hand_over(self) -> None:
        """Adds the copy's gradients to the master's."""
        for half, full in zip(self.copy.parameters(), self.master.parameters(), strict=True):
            if half.grad is not None:
                full.grad = half.grad.float() if full.grad is None else full.grad + half.grad
                half.grad = None


def learning_rate(step: int, s: Settings) -> float:
    """The share of the peak rate: warm-up, plateau, linear decay."""
    decay_from = s.steps * (1 - s.decay_share)
    return min(1.0, (step + 1) / s.warmup, max(0.0, (s.steps - step) / (s.steps - decay_from)))


def bare_share(step: int, s: Settings) -> float:
    """The share of answers without prose: falls from `bare_from` to `bare_to` between 30 % and 70 % of the steps."""
    way = min(1.0, max(0.0, (step / s.steps - 0.3) / 0.4))
    return s.bare_from + way * (s.bare_to - s.bare_from)


def new_model(shape: dict, tokenizer) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        initializer_range=0.02,
        **shape,
    )
    return LlamaForCausalLM(config)


@torch.no_grad()
def evaluate(model, tokenizer, count: int, unseen: bool, bare: bool, seed: int = 990_000) -> float:
    """Execution accuracy on `count` generated examples with or without held-out words."""
    examples = fresh_examples(count, unseen, seed)
    prompts = [prompt_text(e.context, e.question) for e in examples]
    if bare:
        prompts = [p.replace(ASSISTANT, BARE) for p in prompts]
    answers = answer_in_batches(model, tokenizer, prompts, max_new_tokens=90 if bare else 200)
    return sum(right_answers(examples, answers, str if bare else extract_sql)) / count


class Run:
    """One training run in `folder`: model, optimizers, step, and how they are saved and found again."""

    def __init__(self, settings: Settings, folder: Path, device: str):
        self.settings, self.folder, self.device = settings, folder, device
        self.bf16 = device == "cuda" or describe_machine().bf16_is_native
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = self._tokenizer()
        torch.manual_seed(settings.seed)
        self.model = new_model(SHAPES[settings.model], self.tokenizer).to(device)
        if settings.start_from and not (folder / checkpoint.FILE).exists():
            deepen(self.model, models.load(settings.start_from, device=device)[0])
        elif settings.model == "draft" and not (folder / checkpoint.FILE).exists():
            base, _ = models.load("base", device=device)
            batch = make_batch(self.tokenizer, settings.seed, 0, 4, settings.length).to(device)
            print(f"starts from the base's layers {inherit(self.model, base, batch)}", flush=True)
        self.heads = AheadHeads(self.model.config.hidden_size, settings.ahead).to(device)
        half = torch.bfloat16 if self.bf16 else torch.float32
        self.optimizers = muon_and_adam(self.model, settings.muon_lr, settings.adam_lr, half, self.heads.parameters())
        self.peaks = [settings.muon_lr, settings.adam_lr]
        self.step, self.seconds, self.answers, self.smooth = 0, 0.0, 0, None
        self.load()

    def curve(self) -> list[dict]:
        """What the evaluations found so far."""
        path = self.folder / "curve.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _tokenizer(self):
        from transformers import AutoTokenizer

        place = self.folder / "tokenizer"
        if (place / "tokenizer.json").exists():
            return AutoTokenizer.from_pretrained(place)
        if self.settings.start_from or self.settings.model != "base":  # one vocabulary for all
            return AutoTokenizer.from_pretrained(models.folder_of(self.settings.start_from or "base"))
        examples, rng = training_mix(8000), random.Random(0)
        tokenizer = build_tokenizer(examples, [chatty_answer(e, rng) for e in examples])
        tokenizer.save_pretrained(place)
        return tokenizer

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "step": self.step,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "seconds": self.seconds,
            "answers": self.answers,
            "smooth": self.smooth,
            "settings": asdict(self.settings),
        }
        checkpoint.write(self.folder, state)

    def load(self) -> None:
        state = checkpoint.read(self.folder, self.device)
        if state is None:
            return
        now, then = asdict(self.settings), state["settings"]
        changed = [k for k in now if k not in ("eval_every", "save_every") and now[k] != then.get(k, now[k])]
        if changed:
            told = ", ".join(f"{k} {then[k]} then and {now[k]} now" for k in changed)
            raise CourseError(
                f"The checkpoint in {self.folder} has other settings ({told}): repeat them, or give --out."
            )
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds, self.answers = state["step"], state["seconds"], state["answers"]
        self.smooth = state.get("smooth")
        kept = [row for row in self.curve() if row["step"] <= self.step]
        (self.folder / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        print(f"resuming at step {self.step}", flush=True)

    def export(self, target: Path) -> None:
        """The model in bf16 safetensors with its tokenizer, and card.json: how it was made."""
        copy.deepcopy(self.model).to(torch.bfloat16).save_pretrained(target)
        self._tokenizer().save_pretrained(target)  # as it was read: an evaluation leaves its padding in the other
        before = models.card(self.settings.start_from) if self.settings.start_from else {}
        card = {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "minutes": round(self.seconds / 60 + before.get("minutes", 0), 1),
            "answers": self.answers + before.get("answers", 0),
            "machine": asdict(describe_machine()),
            "torch": torch.__version__,
            "settings": asdict(self.settings),
            "curve": self.curve(),
            "before": before,
        }
        (target / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def train(run: Run, compiled: bool = True) -> None:
    """Runs `run` to its last step."""
    from torch.utils.tensorboard import SummaryWriter

    s, device = run.settings, run.device
    log = SummaryWriter(run.folder / "tensorboard")
    half = HalfCopy(nn.ModuleList([run.model, run.heads])) if run.bf16 else None
    model, heads = half.copy if half else (run.model, run.heads)
    if compiled:
        torch_compile.prepare()
    backbone = torch.compile(model.model) if compiled else model.model
    while run.step < s.steps:
        began = time.perf_counter()
        torch.manual_seed(s.seed * 1_000_003 + run.step)  # a resumed run draws what it would have drawn
        lesson = Lesson(bare_share(run.step, s), s.hard_share, s.question_weight, s.prose_weight)
        batch = make_batch(run.tokenizer, s.seed, run.step, s.rows, s.length, lesson).to(device)
        for optimizer, peak in zip(run.optimizers, run.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * learning_rate(run.step, s)
        if half:
            half.refresh()
        embedded = run.model.model.embed_tokens(batch.ids).to(model.dtype)  # bf16 sums would lose the rare words
        hidden = backbone(
            inputs_embeds=embedded, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        where = batch.labels != -100
        losses = F.cross_entropy(model.lm_head(hidden[where]).float(), batch.labels[where], reduction="none")
        weights = batch.weights[where]
        loss = (losses * weights).sum() / weights.sum()
        total = loss
        if run.step >= s.ahead_from * s.steps:
            total = loss + s.ahead_weight * heads.loss(hidden, model.lm_head, batch)
        total.backward()
        if half:
            half.hand_over()
        nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        run.step += 1
        run.seconds += time.perf_counter() - began
        run.answers += batch.answers
        answer_loss = losses[weights == 1].mean().item()  # of what weighs in full, see Lesson
        if not math.isfinite(answer_loss):
            raise SystemExit(f"the loss is {answer_loss} at step {run.step}: give a lower --muon_lr and another --out.")
        run.smooth = answer_loss if run.smooth is None else 0.95 * run.smooth + 0.05 * answer_loss
        log.add_scalar("loss/answers", answer_loss, run.step)
        if run.step % 10 == 0:
            minutes = run.seconds / 60
            left = minutes / run.step * (s.steps - run.step)
            print(
                f"step {run.step}/{s.steps}  loss {run.smooth:.4f}  {run.answers} answers  {minutes:.1f} min,"
                f" {left:.0f} left",
                flush=True,
            )
        if run.step % s.eval_every == 0:
            run.model.eval()
            seen, unseen = (evaluate(run.model, run.tokenizer, 200, u, bare=True) for u in (False, True))
            run.model.train()
            log.add_scalars("accuracy", {"seen": seen, "unseen": unseen}, run.step)
            row = {
                "step": run.step,
                "minutes": run.seconds / 60,
                "answers": run.answers,
                "loss": run.smooth,
                "seen": seen,
                "unseen": unseen,
            }
            with (run.folder / "curve.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"  execution accuracy (bare SQL, n=200): seen {seen:.2f}, unseen {unseen:.2f}", flush=True)
        if run.step % s.save_every == 0 or run.step == s.steps:
            run.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in asdict(Settings()).items():
        choices = SHAPES if name == "model" else None
        parser.add_argument(f"--{name}", type=type(value), default=value, choices=choices)
    parser.add_argument("--out", type=Path, help="checkpoints and logs; default build/pretrain/<model>")
    parser.add_argument("--export", type=Path, help="where the model goes; default data/models/<model>")
    parser.add_argument("--no_compile", action="store_true")
    arguments = vars(parser.parse_args())
    out, export, no_compile = (arguments.pop(k) for k in ("out", "export", "no_compile"))
    settings = Settings(**arguments)
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        run = Run(settings, out or ROOT / "build" / "pretrain" / settings.model, device)
        train(run, compiled=not no_compile)
        run.export(export or ROOT / "data" / "models" / settings.model)
    except CourseError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
