"""Fine-tune a language model to answer with SQL alone: `python -m helpers.training.fine_tune_llm` (notebook 03).

PEFT's adapters under Hugging Face's Trainer, with the arguments of AWS's published script of the same name. The loss
counts the completion only, its end-of-sequence token included; examples share rows (packing.py); answers are
judged by running them. A run that is killed resumes from its last checkpoint.

Methods: "lora" (Hu et al. 2021), "qlora" (Dettmers et al. 2023: the base in NF4), "llama_adapter" (Zhang et al. 2023),
"full" (every weight).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean

import psutil
import torch

from helpers import models
from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.kernels import torch_compile
from helpers.measuring.memory import peak_memory_gib
from helpers.models import loading
from helpers.text_to_sql.dataset import training_examples
from helpers.text_to_sql.example import Example
from helpers.training import script
from helpers.training.completions import ANSWERS, by_schema, encode, examples_from
from helpers.training.fast_layers import speed_up
from helpers.training.packing import Tree, collate, pack, separates_branches, trees_of
from helpers.training.processes import rank
from helpers.weights.adapters.lora import EVERYWHERE
from helpers.weights.quantization import nf4

METHODS = ("lora", "qlora", "llama_adapter", "full")
WORTH_COMPILING = 200  # steps


@dataclass
class Arguments(script.Arguments):
    """What a run depends on."""

    model_id: str = "base"
    output_dir: str = script.model_dir("fine_tune_llm")
    method: str = script.choice("lora", METHODS)
    answers: str = script.choice("sql", ANSWERS)  # "explained": the SQL with a comment
    train_dataset_path: str = script.channel("train")
    validation_dataset_path: str = script.channel("validation")
    more_examples: int = 0  # generated ones, beside the course's training split
    lora_r: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    adapter_len: int = 16  # LLaMA-Adapter: prompts in each layer
    begin_with: str = ""  # a LoRA adapter that training goes on with, one of the course's models or a folder
    epochs: float = 3.0
    max_steps: int = -1
    per_device_train_batch_size: int = 8  # packed rows
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    max_seq_length: int = 512
    lr: float = 1e-3
    lr_scheduler_type: str = "linear"
    warmup_steps: int = 10
    optim: str = "auto"
    compiled: str = script.choice("auto", ("auto", "True", "False"))  # layers; "auto": in a long run on a CPU
    save_steps: int = 100
    eval_samples: int = 100  # validation questions that are answered after each epoch; 0 for none
    merge_weights: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.more_examples and self.train_dataset_path != "course":
            raise CourseError("--more_examples are the course's own: leave --train_dataset_path out.")
        if self.export and self.method not in ("lora", "qlora"):
            raise CourseError(f"--export is for adapters that can be merged, not for --method {self.method}.")
        if self.begin_with and self.method not in ("lora", "qlora"):
            raise CourseError(f"--begin_with takes a LoRA adapter: leave it out with --method {self.method}.")


def train(a: Arguments) -> dict:
    """Train, save the adapter and (with `merge_weights`) the merged model; returns the report, which is also written.

    The report counts parameters and weight bytes, seconds (of training, without the answering of questions) and tokens,
    and the memory that the run added to that of a process which has only imported its libraries.
    """
    from transformers import PrinterCallback, set_seed

    from helpers.training.completion_trainer import CompletionTrainer
    from helpers.training.trainer_callback import AccuracyCallback

    set_seed(a.seed)
    device = script.device()
    dtype = a.compute_dtype(device)
    tokenizer = models.tokenizer_of(a.model_id)
    examples, validation = _examples(a)
    packed, num_tokens = training_rows(a, examples, tokenizer)
    before = psutil.Process().memory_info().rss / 2**30
    model = prepared(a, dtype, device)
    with script.autocast(device, dtype):  # as the Trainer will run it
        if not separates_branches(model):
            packed = [[Tree((e,))] for row in packed for tree in row for e in tree.examples]
    compiled = _is_compiled(a, len(packed), device)
    if compiled or device == "cpu":
        speed_up(model, compiled)
    length = a.max_seq_length if compiled else 0  # another shape would be compiled anew
    last = _last_checkpoint(a)
    accuracy = AccuracyCallback(tokenizer, validation, a.checkpoints)
    trainer = CompletionTrainer(
        model,
        _training_arguments(a, dtype, device),
        train_dataset=packed,
        data_collator=lambda rows: collate(rows, tokenizer.pad_token_id, length),
        callbacks=[accuracy],
    )
    trainer.remove_callback(PrinterCallback)  # the course's own says the same in fewer words
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    accuracy.evaluate(model, trainer.state)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else peak_memory_gib() - before
    history = trainer.state.log_history
    judged = [entry for entry in history if "execution_accuracy" in entry]
    report = {
        "arguments": a.without_places(),
        "seconds": accuracy.seconds,
        "steps": trainer.state.global_step,
        "tokens": num_tokens,
        "rows": len(packed),
        "peak_memory_gib": peak,
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "weight_bytes": sum(p.nbytes for p in model.parameters()),
        "loss": [entry["loss"] for entry in history if "loss" in entry],
        "accuracy": [entry["execution_accuracy"] for entry in judged],
        "right_by_kind": judged[-1]["right_by_kind"] if judged else {},
    }
    if rank() == 0:
        _save(a, model, tokenizer)
        write_whole(Path(a.output_dir) / "report.json", json.dumps(report, indent=1) + "\n")
        if a.export:
            _export(a, model, report)
    return report


def _examples(a: Arguments) -> tuple[list[Example], list[Example]]:
    """What is learned from, and the validation questions: both are read before anything is trained."""
    more = a.more_examples
    examples = training_examples(more, a.seed) if more else examples_from(a.train_dataset_path, "train")
    if not examples:
        raise CourseError("There are no training examples: look at --train_dataset_path.")
    validation = examples_from(a.validation_dataset_path, "validation")[: a.eval_samples] if a.eval_samples else []
    if a.eval_samples and not validation:
        raise CourseError("There are no validation examples: look at --validation_dataset_path.")
    return examples, validation


def training_rows(a: Arguments, examples: Sequence[Example], tokenizer) -> tuple[Sequence[list[Tree]], int]:
    """The rows that the examples are packed into, and the tokens of all examples, each with its whole prompt."""
    encoded = [encode(e, tokenizer, ANSWERS[a.answers]) for e in examples]
    trees = trees_of(by_schema(examples, encoded), a.max_seq_length)
    return pack(trees, a.max_seq_length), sum(len(e.ids) for e in encoded)


def _is_compiled(a: Arguments, num_rows: int, device: str) -> bool:
    """Whether compiling pays: in some hundred steps on a CPU, if there is a compiler."""
    if a.compiled != "auto":
        return a.compiled == "True"
    steps = a.max_steps if a.max_steps > 0 else a.epochs * num_rows / a.per_device_train_batch_size
    return device == "cpu" and steps >= WORTH_COMPILING and not (a.gradient_checkpointing or torch_compile.why_not())


def _last_checkpoint(a: Arguments) -> Path | None:
    """The newest whole checkpoint of this very run; CourseError where the folder holds another run's."""
    free = ("save_steps", "merge_weights", "compiled", "eval_samples")
    identity = {name: value for name, value in a.without_places().items() if name not in free}
    identity["model_hash"] = models.hash_of(a.model_id)
    if a.begin_with:
        identity["begin_with_hash"] = models.hash_of(a.begin_with)
    file = a.checkpoints / "arguments.json"
    # A checkpoint's state is written last: one without it was cut off by a kill.
    states = a.checkpoints.glob("checkpoint-*/trainer_state.json")
    whole = sorted((state.parent for state in states), key=lambda folder: int(folder.name.split("-")[1]))
    if whole and file.exists() and json.loads(file.read_text()) != identity:
        raise CourseError(f"{a.checkpoints} holds another run: repeat its arguments, or give another --output_dir.")
    write_whole(file, json.dumps(identity))
    return whole[-1] if whole else None


def _save(a: Arguments, model, tokenizer) -> None:
    """The adapter, and where it can be merged the merged model; of a full fine-tuning the model."""
    folder = Path(a.output_dir)
    model.save_pretrained(folder / ("merged" if a.method == "full" else "adapter"))
    if a.merge_weights and a.method in ("lora", "qlora"):
        models.load(folder / "adapter")[0].save_pretrained(folder / "merged")  # the unquantized base takes it in
    if (folder / "merged").exists():
        tokenizer.save_pretrained(folder / "merged")


def _export(a: Arguments, model, report: dict) -> None:
    """The adapter in two bytes a number, and card.json: how it was made."""
    place, before = Path(a.export), models.card(a.begin_with) if a.begin_with else {}
    model.to(torch.bfloat16).save_pretrained(place)
    (place / "README.md").unlink(missing_ok=True)  # PEFT's template, with nothing in it
    (place / loading.ADAPTER).chmod(0o644)
    losses = report["loss"]
    card = report | {"loss": [round(mean(losses[i : i + 20]), 4) for i in range(0, len(losses), 20)]}
    if a.begin_with:
        card["began_with"] = before
    script.write_card(place, a, card)


def prepared(a: Arguments, dtype: torch.dtype = torch.float32, device: str = "cpu"):
    """The base model with what the method adds, ready to be trained; what is frozen is in `dtype`."""
    from peft import AdaptionPromptConfig, LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

    if a.method == "llama_adapter" and models.config_at(a.model_id).model_type not in ("llama", "mistral"):
        raise CourseError("--method llama_adapter needs a model of the kind llama or mistral: take lora.")
    if a.method == "qlora":
        model = nf4.nf4(a.model_id, dtype, device)
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=a.gradient_checkpointing)
    else:
        model, _ = models.load(a.model_id, torch.float32 if a.method == "full" else dtype, device)
    model.config.use_cache = False  # a cache would hide from transformers that examples share a sequence
    if a.begin_with:
        model = PeftModel.from_pretrained(model, adapter_folder(a.begin_with), is_trainable=True)
    elif a.method in ("lora", "qlora"):
        names = {n.split(".")[-1] for n, _ in model.named_modules()}
        targets = list(EVERYWHERE) if set(EVERYWHERE) <= names else "all-linear"
        shape = dict(r=a.lora_r, lora_alpha=a.lora_alpha, lora_dropout=a.lora_dropout)
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=targets, **shape))
    elif a.method == "llama_adapter":
        layers = model.config.num_hidden_layers
        config = AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=a.adapter_len, adapter_layers=layers)
        model = get_peft_model(model, config)
        for p in model.parameters():
            p.data = p.data.float() if p.requires_grad else p.data
    if a.method != "full":
        model.peft_config["default"].base_model_name_or_path = a.model_id  # not the path that it has on this machine
        # Else PEFT asks the Hub for the base's vocabulary, at each checkpoint of the Trainer, too.
        model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=False)
    return model.train()


def adapter_folder(name: str) -> str:
    """The folder of an adapter; CourseError where the name is that of another kind of model."""
    folder = models.folder_of(name)
    if not (Path(folder) / loading.ADAPTER).exists():
        raise CourseError(f"{name} is no adapter: give one with --begin_with, or leave it out.")
    return folder


def _training_arguments(a: Arguments, dtype: torch.dtype, device: str):
    from transformers import TrainingArguments

    os.environ["TENSORBOARD_LOGGING_DIR"] = str(a.checkpoints.parent / "tensorboard")
    optim = a.optim
    if optim == "auto":  # states of 8 bits for what is large: adapters are small, and small tensors stay in 32 bits
        optim = "adamw_bnb_8bit" if device == "cuda" else "adamw_torch"
    return TrainingArguments(
        str(a.checkpoints),
        num_train_epochs=a.epochs,
        max_steps=a.max_steps,
        learning_rate=a.lr,
        lr_scheduler_type=a.lr_scheduler_type,
        warmup_steps=a.warmup_steps,
        optim=optim,
        max_grad_norm=1.0,
        per_device_train_batch_size=a.per_device_train_batch_size,
        gradient_accumulation_steps=a.gradient_accumulation_steps,
        gradient_checkpointing=a.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=dtype == torch.bfloat16,
        seed=a.seed,
        data_seed=a.seed,
        save_steps=a.save_steps,
        save_total_limit=1,
        logging_steps=1,
        report_to=["tensorboard"],
        log_level="error",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        remove_unused_columns=False,
        dataloader_pin_memory=device == "cuda",
        ddp_backend="gloo" if device == "cpu" and "WORLD_SIZE" in os.environ else None,
    )


if __name__ == "__main__":
    script.run(train, Arguments, __doc__.splitlines()[0])
