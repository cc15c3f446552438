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

import torch

from helpers import models
from helpers.errors import CourseError
from helpers.machine import describe_machine
from helpers.results import peak_memory_gib, write_whole
from helpers.text_to_sql.dataset import training_examples
from helpers.text_to_sql.evaluate import answer_in_batches, right_answers
from helpers.text_to_sql.prompts import prompt_for
from helpers.training.completions import ANSWERS, collate, encode, examples_from, pack
from helpers.weights import qlora
from helpers.weights.lora import EVERYWHERE

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

    The report counts parameters and weight bytes, seconds and tokens, and the memory that the run added to that of a
    process which has only imported its libraries.
    """
    from transformers import PrinterCallback, Trainer, set_seed

    _check(a)
    set_seed(a.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = describe_machine().bf16_is_native or device == "cuda" if a.bf16 == "auto" else a.bf16 in ("True", "true")
    tokenizer = models.tokenizer_of(a.model_id)
    more = a.more_examples
    examples = training_examples(more, a.seed) if more else examples_from(a.train_dataset_path, "train")
    rows = pack([encode(e, tokenizer, ANSWERS[a.answers]) for e in examples], a.max_seq_length)
    before = _resident_gib()
    model = prepared(a, half, device)
    folder = Path(a.output_dir)
    checkpoints = Path(a.checkpoint_dir or folder / "checkpoints")
    trainer = Trainer(model, _training_arguments(a, checkpoints, half, device), train_dataset=rows,
                      data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
                      callbacks=[_accuracy_callback(a, tokenizer)])  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # the course's own says the same in fewer words
    began = time.perf_counter()
    trainer.train(resume_from_checkpoint=any(checkpoints.glob("checkpoint-*")) or None)
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else peak_memory_gib() - before
    report = {
        "arguments": asdict(a), "seconds": seconds, "steps": trainer.state.global_step,
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


def _export(model, place: Path, report: dict) -> None:
    """The adapter in two bytes a number, and card.json: how it was made."""
    model.to(torch.bfloat16).save_pretrained(place, save_embedding_layers=False)
    (place / "README.md").unlink(missing_ok=True)  # PEFT's template, with nothing in it
    (place / models.ADAPTER).chmod(0o644)
    for path in ("output_dir", "export", "checkpoint_dir"):  # of this machine
        report["arguments"].pop(path)
    card = report | {"machine": asdict(describe_machine()), "torch": torch.__version__, "loss": report["loss"][-1:]}
    (place / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def prepared(a: Arguments, half: bool = False, device: str = "cpu"):
    """The base model with what the method adds, ready to be trained; `half`: what is frozen is in bfloat16."""
    from peft import AdaptionPromptConfig, LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if a.method == "qlora":
        model = qlora.nf4(a.model_id, torch.bfloat16 if half else torch.float32, device)
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=a.gradient_checkpointing)
    else:
        frozen = "bfloat16" if half and a.method != "full" else "float32"
        model, _ = models.load(a.model_id, frozen, device)
    model.config.use_cache = False  # a cache would hide from transformers that examples share a row
    if a.method in ("lora", "qlora"):
        targets = [name for name in EVERYWHERE if any(n.endswith(name) for n, _ in model.named_modules())]
        config = LoraConfig(task_type="CAUSAL_LM", r=a.lora_r, lora_alpha=a.lora_alpha, lora_dropout=a.lora_dropout,
                            target_modules=targets or "all-linear")  # fmt: skip
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


def _accuracy_callback(a: Arguments, tokenizer):
    """Prints the loss, and after each epoch answers questions that it has not seen, and runs the SQL."""
    from transformers import TrainerCallback

    def answered(model) -> float:
        examples = examples_from(a.validation_dataset_path, "validation")[: a.eval_samples]
        prompts = [prompt_for(tokenizer, e) for e in examples]
        return sum(right_answers(examples, answer_in_batches(model, tokenizer, prompts))) / len(examples)

    class Accuracy(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **more):
            step = state.global_step
            if state.is_world_process_zero and "loss" in logs and (step == 1 or step % 10 == 0):
                print(f"step {step}/{state.max_steps}  loss {logs['loss']:.4f}", flush=True)

        def on_epoch_end(self, args, state, control, model=None, **more):
            if not a.eval_samples or not state.is_world_process_zero:
                return
            asked = model.module if hasattr(model, "module") else model
            asked.eval()
            right = answered(asked)
            model.train()
            state.log_history.append({"step": state.global_step, "execution_accuracy": right})
            print(f"  step {state.global_step}: {right:.1%} of {a.eval_samples} validation answers right", flush=True)

    return Accuracy()


def _resident_gib() -> float:
    """What the process holds in RAM now, in GiB."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**30
    return peak_memory_gib()


def _check(a: Arguments) -> None:
    for name, value, known in (("method", a.method, METHODS), ("answers", a.answers, tuple(ANSWERS))):
        if value not in known:
            raise CourseError(f"--{name} {value} is unknown; there are {', '.join(known)}.")
    if a.bf16 not in ("auto", "True", "true", "False", "false"):
        raise CourseError("--bf16 is auto, True or False.")
    if a.more_examples and a.train_dataset_path != "course":
        raise CourseError("--more_examples are the course's own: leave --train_dataset_path out.")


def parse(arguments: Sequence[str] | None = None) -> Arguments:
    """Arguments of the command line; a truth value is written True or False, as SageMaker passes them."""

    def truth(text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise argparse.ArgumentTypeError(f"{text} is neither True nor False")
        return text.lower() == "true"

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
