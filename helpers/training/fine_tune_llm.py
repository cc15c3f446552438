"""Fine-tune a language model to answer with SQL alone: `python -m helpers.training.fine_tune_llm` (notebook 03).

PEFT's adapters under Hugging Face's Trainer, with the arguments of AWS's published script of the same name. The loss
counts the completion only, its end-of-sequence token included; examples share rows (completions.py); answers are judged
by running them. It runs alike from a notebook, the shell, torchrun (one process a device), and in a SageMaker training
job, whose SM_* variables give the folders. A run that is killed resumes from its last checkpoint.

Methods: "lora" (Hu et al. 2021), "qlora" (Dettmers et al. 2023: the base in NF4), "llama_adapter" (Zhang et al. 2023),
"full" (every weight).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil
import torch

from helpers import models
from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.measuring.machine import describe_machine
from helpers.measuring.memory import peak_memory_gib
from helpers.models import loading
from helpers.text_to_sql.dataset import training_examples
from helpers.text_to_sql.evaluate import answer_in_batches, right_answers
from helpers.text_to_sql.generator import Example
from helpers.text_to_sql.prompts import prompt_for
from helpers.training.completions import ANSWERS, encode, examples_from
from helpers.training.packing import collate, pack
from helpers.weights.adapters.lora import EVERYWHERE
from helpers.weights.quantization import nf4

METHODS = ("lora", "qlora", "llama_adapter", "full")


@dataclass
class Arguments:
    """What a run depends on."""

    model_id: str = "base"  # the course's model, a folder, or a model of the Hub
    method: str = "lora"
    answers: str = "sql"  # or "explained": the SQL with a comment
    train_dataset_path: str = os.environ.get("SM_CHANNEL_TRAIN", "course")
    validation_dataset_path: str = os.environ.get("SM_CHANNEL_VALIDATION", "course")
    output_dir: str = os.environ.get("SM_MODEL_DIR", "build/fine_tune_llm")
    export: str = ""  # where else the adapter goes, in bfloat16 and with a card: data/models/fine-tuned, say
    checkpoint_dir: str = "/opt/ml/checkpoints" if "SM_MODEL_DIR" in os.environ else ""  # else in output_dir
    more_examples: int = 0  # generated ones, beside the course's training split
    lora_r: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    adapter_len: int = 16  # LLaMA-Adapter: prompts in each layer
    epochs: float = 3.0
    max_steps: int = -1
    per_device_train_batch_size: int = 8  # rows
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    max_seq_length: int = 512
    lr: float = 1e-3
    lr_scheduler_type: str = "linear"
    warmup_steps: int = 10
    optim: str = "auto"
    bf16: str = "auto"
    seed: int = 0
    save_steps: int = 100
    eval_samples: int = 100  # validation questions that are answered after each epoch; 0 for none
    merge_weights: bool = True


def train(a: Arguments) -> dict:
    """Train, save the adapter and (with `merge_weights`) the merged model; returns the report, which is also written.

    The report counts parameters and weight bytes, seconds (of training, without the answering of questions) and tokens,
    and the memory that the run added to that of a process which has only imported its libraries.
    """
    from transformers import PrinterCallback, Trainer, set_seed

    _check(a)
    set_seed(a.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # torchrun: a process, a device
    half = describe_machine().bf16_is_native or device == "cuda" if a.bf16 == "auto" else a.bf16 in ("True", "true")
    tokenizer = models.tokenizer_of(a.model_id)
    examples, validation = _examples(a)
    encoded = [encode(e, tokenizer, ANSWERS[a.answers]) for e in examples]
    rows = pack(encoded, a.max_seq_length)
    before = psutil.Process().memory_info().rss / 2**30
    model = prepared(a, half, device)
    with torch.autocast(device, torch.bfloat16, enabled=half):  # as the Trainer will run it
        if not separates_examples(model):
            rows = [[e] for e in encoded]
    folder = Path(a.output_dir)
    checkpoints = Path(a.checkpoint_dir or folder / "checkpoints")
    last = _resumable(a, checkpoints)
    accuracy = _accuracy_callback(tokenizer, validation, checkpoints)
    trainer = Trainer(
        model,
        _training_arguments(a, checkpoints, half, device),
        train_dataset=rows,
        data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
        callbacks=[accuracy],
    )
    trainer.remove_callback(PrinterCallback)  # the course's own says the same in fewer words
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    accuracy.answer(model, trainer.state)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else peak_memory_gib() - before
    report = {
        "arguments": asdict(a), "seconds": accuracy.seconds, "steps": trainer.state.global_step,
        "tokens": sum(len(e.ids) for row in rows for e in row), "rows": len(rows), "peak_memory_gib": peak,
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "weight_bytes": sum(p.nbytes for p in model.parameters()),
        "loss": [row["loss"] for row in trainer.state.log_history if "loss" in row],
        "accuracy": [row["execution_accuracy"] for row in trainer.state.log_history if "execution_accuracy" in row],
    }  # fmt: skip
    if trainer.is_world_process_zero():
        # Without `save_embedding_layers` PEFT would ask the Hub for the base's vocabulary.
        more = {} if a.method == "full" else {"save_embedding_layers": False}
        model.save_pretrained(folder / ("merged" if a.method == "full" else "adapter"), **more)
        if a.merge_weights and a.method in ("lora", "qlora"):
            models.load(folder / "adapter")[0].save_pretrained(folder / "merged")  # the unquantized base takes it in
        if (folder / "merged").exists():
            tokenizer.save_pretrained(folder / "merged")
        write_whole(folder / "report.json", json.dumps(report, indent=1) + "\n")
        if a.export:
            _export(model, Path(a.export), report)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return report


def _examples(a: Arguments) -> tuple[list[Example], list[Example]]:
    """What is learned from, and the validation questions: both are read before anything is trained."""
    more = a.more_examples
    examples = training_examples(more, a.seed) if more else examples_from(a.train_dataset_path, "train")
    validation = examples_from(a.validation_dataset_path, "validation")[: a.eval_samples] if a.eval_samples else []
    for name, found, wanted in (("training", examples, 1), ("validation", validation, min(1, a.eval_samples))):
        if len(found) < wanted:
            raise CourseError(f"There are no {name} examples: look at --{name.replace('ing', '')}_dataset_path.")
    if a.answers == "explained" and not all(e.restated for e in examples):
        raise CourseError("--answers explained needs examples with `restated`, as the course's own have.")
    return examples, validation


@torch.no_grad()
def separates_examples(model) -> bool:
    """Whether examples that share a row stay blind to each other, because their positions start again: so it is in
    Llama and its relatives, and not in models that have no positions to look at (Falcon, Bloom)."""
    one, other = [5, 6, 7, 8], [9, 8, 7]
    ids, places = torch.tensor([one + other]), torch.tensor([[*range(len(one)), *range(len(other))]])
    ids, places = ids.to(model.device), places.to(model.device)
    together = model(input_ids=ids, position_ids=places, use_cache=False).logits[0, len(one) :]
    apart = model(input_ids=ids[:, len(one) :], position_ids=places[:, len(one) :], use_cache=False).logits[0]
    return bool((together - apart).abs().max() <= 0.05 * apart.abs().max())


def _resumable(a: Arguments, checkpoints: Path) -> Path | None:
    """The newest whole checkpoint of this very run; CourseError where the folder holds another run's."""
    places = ("output_dir", "export", "checkpoint_dir", "save_steps", "merge_weights")
    identity = {k: v for k, v in asdict(a).items() if k not in places} | {"model_hash": models.hash_of(a.model_id)}
    kept = checkpoints / "arguments.json"
    # A checkpoint's state is written last: one without it was cut off by a kill.
    whole = sorted(checkpoints.glob("checkpoint-*/trainer_state.json"), key=lambda p: int(p.parent.name.split("-")[1]))
    if whole and kept.exists() and json.loads(kept.read_text()) != identity:
        raise CourseError(f"{checkpoints} holds another run: repeat its arguments, or give another --output_dir.")
    write_whole(kept, json.dumps(identity))
    return whole[-1].parent if whole else None


def _export(model, place: Path, report: dict) -> None:
    """The adapter in two bytes a number, and card.json: how it was made."""
    model.to(torch.bfloat16).save_pretrained(place, save_embedding_layers=False)
    (place / "README.md").unlink(missing_ok=True)  # PEFT's template, with nothing in it
    (place / loading.ADAPTER).chmod(0o644)
    for path in ("output_dir", "export", "checkpoint_dir"):  # of this machine
        report["arguments"].pop(path)
    card = report | {"machine": asdict(describe_machine()), "torch": torch.__version__, "loss": report["loss"][-1:]}
    (place / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def prepared(a: Arguments, half: bool = False, device: str = "cpu"):
    """The base model with what the method adds, ready to be trained; `half`: what is frozen is in bfloat16."""
    from peft import AdaptionPromptConfig, LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if a.method == "qlora":
        model = nf4.nf4(a.model_id, torch.bfloat16 if half else torch.float32, device)
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=a.gradient_checkpointing)
    else:
        frozen = "bfloat16" if half and a.method != "full" else "float32"
        model, _ = models.load(a.model_id, frozen, device)
    model.config.use_cache = False  # a cache would hide from transformers that examples share a row
    if a.method in ("lora", "qlora"):
        names = {n.split(".")[-1] for n, _ in model.named_modules()}
        targets = list(EVERYWHERE) if set(EVERYWHERE) <= names else "all-linear"
        config = LoraConfig(task_type="CAUSAL_LM", r=a.lora_r, lora_alpha=a.lora_alpha, lora_dropout=a.lora_dropout,
                            target_modules=targets)  # fmt: skip
        model = get_peft_model(model, config)
    elif a.method == "llama_adapter":
        layers = model.config.num_hidden_layers
        config = AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=a.adapter_len, adapter_layers=layers)
        model = get_peft_model(model, config)
        for p in model.parameters():
            p.data = p.data.float() if p.requires_grad else p.data
    if a.method != "full":
        model.peft_config["default"].base_model_name_or_path = a.model_id  # not the path that it has on this machine
    return model.train()


def _training_arguments(a: Arguments, checkpoints: Path, half: bool, device: str):
    from transformers import TrainingArguments

    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(checkpoints.parent / "tensorboard"))
    optim = a.optim
    if optim == "auto":  # states of 8 bits for what is large: adapters are small, and small tensors stay in 32 bits
        optim = "adamw_bnb_8bit" if device == "cuda" else "adamw_torch"
    return TrainingArguments(
        str(checkpoints), num_train_epochs=a.epochs, max_steps=a.max_steps, learning_rate=a.lr,
        per_device_train_batch_size=a.per_device_train_batch_size, lr_scheduler_type=a.lr_scheduler_type,
        gradient_accumulation_steps=a.gradient_accumulation_steps, warmup_steps=a.warmup_steps, optim=optim, bf16=half,
        gradient_checkpointing=a.gradient_checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False},
        max_grad_norm=1.0, seed=a.seed, data_seed=a.seed, save_steps=a.save_steps, save_total_limit=1, logging_steps=1,
        report_to=["tensorboard"], use_cpu=device == "cpu", remove_unused_columns=False, disable_tqdm=True,
        dataloader_pin_memory=device == "cuda", log_level="error",
        ddp_backend="gloo" if device == "cpu" and "WORLD_SIZE" in os.environ else None,
    )  # fmt: skip


def _accuracy_callback(tokenizer, validation: list[Example], checkpoints: Path):
    """Prints the loss; after each epoch answers questions that it has not learned, and runs the SQL; keeps the time."""
    from transformers import TrainerCallback

    class Accuracy(TrainerCallback):
        def __init__(self):
            self.seconds, self.began = 0.0, 0.0  # of training, over all processes that took part

        def on_train_begin(self, args, state, control, **more):
            with contextlib.suppress(OSError, ValueError):
                self.seconds = json.loads((checkpoints / "seconds.json").read_text()) if state.global_step else 0.0
            self.began = time.perf_counter()

        def count(self) -> None:
            self.seconds, self.began = self.seconds + time.perf_counter() - self.began, time.perf_counter()

        def on_save(self, args, state, control, **more):
            self.count()
            if state.is_world_process_zero:
                write_whole(checkpoints / "seconds.json", json.dumps(self.seconds))

        def on_train_end(self, args, state, control, **more):
            self.count()

        def on_log(self, args, state, control, logs=None, **more):
            step = state.global_step
            if state.is_world_process_zero and "loss" in logs and (step == 1 or step % 10 == 0):
                print(f"step {step}/{state.max_steps}  loss {logs['loss']:.4f}", flush=True)

        def on_epoch_end(self, args, state, control, model=None, **more):
            self.count()
            self.answer(model, state)
            self.began = time.perf_counter()

        def answer(self, model, state) -> None:
            done = {row["step"] for row in state.log_history if "execution_accuracy" in row}
            if not validation or state.global_step in done or not state.is_world_process_zero:
                return
            asked = model.module if hasattr(model, "module") else model
            asked.eval()
            answers = answer_in_batches(asked, tokenizer, [prompt_for(tokenizer, e) for e in validation])
            right = sum(right_answers(validation, answers)) / len(validation)
            model.train()
            state.log_history.append({"step": state.global_step, "execution_accuracy": right})
            told = f"{right:.1%} of {len(validation)} validation answers right"
            print(f"  step {state.global_step}: {told}", flush=True)

    return Accuracy()


def _check(a: Arguments) -> None:
    for name, value, known in (("method", a.method, METHODS), ("answers", a.answers, tuple(ANSWERS))):
        if value not in known:
            raise CourseError(f"--{name} {value} is unknown; there are {', '.join(known)}.")
    if a.bf16 not in ("auto", "True", "true", "False", "false"):
        raise CourseError("--bf16 is auto, True or False.")
    if a.more_examples and a.train_dataset_path != "course":
        raise CourseError("--more_examples are the course's own: leave --train_dataset_path out.")
    if a.export and a.method not in ("lora", "qlora"):
        raise CourseError(f"--export is for adapters that can be merged, not for --method {a.method}.")
    if a.method == "llama_adapter" and models.config_at(a.model_id).model_type not in ("llama", "mistral"):
        raise CourseError("--method llama_adapter needs a model of the kind llama or mistral: take lora.")


def truth(text: str) -> bool:
    """A truth value of the command line: True or False, as SageMaker passes them."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text} is neither True nor False")
    return text.lower() == "true"


def parse(arguments: Sequence[str] | None = None) -> Arguments:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field, default in zip(fields(Arguments), asdict(Arguments()).values()):
        parser.add_argument(
            f"--{field.name}", type=truth if isinstance(default, bool) else type(default), default=default
        )
    return Arguments(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    try:
        train(parse())
    except CourseError as error:
        sys.exit(str(error))
