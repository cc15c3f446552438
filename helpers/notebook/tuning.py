"""What notebooks 03 and 03b have time for under each profile, and the trainings that they start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.files import build_root, write_whole
from helpers.notebook.lesson import Lesson
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.example import Example
from helpers.training.completions import Encoded, by_schema, encode
from helpers.training.launch import launch
from helpers.training.packing import trees_of

SCRIPT = "helpers.training.fine_tune_llm"


@dataclass(frozen=True)
class TuningSizes:
    """Texts that libraries are compared on; places of a packed row, rows of a timed step and its rounds; the longest
    answers of a fine-tuned model and of the base; questions for the base, for what is trained here, for the shipped
    model; requests that are timed; how the fastest linears are chosen (packed_linear.install); arguments of this
    notebook's own training; steps of a training that is only compared, and of an adapter of 03b; questions in a batch
    of several adapters."""

    texts: int
    length: int
    rows: int
    rounds: int
    longest: int
    longest_prose: int
    base: int
    own: int
    shipped: int
    timed: int
    turns: int
    own_training: Mapping[str, object]
    short_steps: int
    adapter_steps: int
    batch: int


TUNING = {
    "smoke": TuningSizes(
        texts=1,
        length=192,
        rows=1,
        rounds=2,
        longest=16,
        longest_prose=16,
        base=2,
        own=2,
        shipped=3,
        timed=2,
        turns=0,
        own_training={"max_steps": 2},
        short_steps=2,
        adapter_steps=2,
        batch=3,
    ),
    "cpu": TuningSizes(4, 512, 2, 3, 128, 160, 40, 30, 100, 8, 3, {"max_steps": 24}, 4, 40, 12),
    "full": TuningSizes(16, 512, 4, 6, 256, 256, 450, 450, 450, 150, 5, {"epochs": 1.0}, 10, 1000, 48),
    "gpu": TuningSizes(16, 512, 4, 6, 256, 256, 450, 450, 450, 100, 5, {"epochs": 1.0}, 10, 1000, 48),
}


def train_own(lesson: Lesson, rank: int, learning_rate: float) -> Path:
    """The folder of a LoRA adapter trained here for as long as the profile has time, and of the merged model."""
    more = {"lr": learning_rate, "lora_r": rank, "lora_alpha": 2.0 * rank}
    return _launched(lesson, more | dict(TUNING[lesson.profile].own_training))


def train_briefly(lesson: Lesson, method: str, rank: int, learning_rate: float) -> Path:
    """The folder of a short training by another method: its report, and the adapter where there is one."""
    more = {"method": method, "lr": learning_rate, "lora_r": rank, "lora_alpha": 2.0 * rank}
    return _launched(lesson, more | {"max_steps": TUNING[lesson.profile].short_steps, "merge_weights": False})


def train_adapter(lesson: Lesson, learning_rate: float, **arguments: object) -> Path:
    """The folder of an adapter that is not merged, of 03b: trained with these arguments of fine_tune_llm."""
    more = {"lr": learning_rate, "max_steps": TUNING[lesson.profile].adapter_steps, "merge_weights": False}
    return _launched(lesson, more | arguments)


def _launched(lesson: Lesson, more: dict[str, object]) -> Path:
    # Two rows: training every weight has to fit beside this process into 8 GiB.
    arguments = {"seed": lesson.seed, "warmup_steps": 5, "per_device_train_batch_size": 2, "eval_samples": 0}
    small = lesson.profile == "smoke"
    if small:  # what comes of it nobody reads
        length = TUNING["smoke"].length
        arguments |= {"train_dataset_path": str(_few_examples()), "per_device_train_batch_size": 1}
        arguments |= {"max_seq_length": length}
    # Loading the libraries anew takes longer than two steps.
    folder = launch(SCRIPT, lesson.model_id, arguments | more, inside=small)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of no use to a run that has ended
    if more.get("method") == "full":  # only its time and memory are compared
        shutil.rmtree(folder / "merged", ignore_errors=True)
    return folder


def _few_examples(count: int = 8) -> Path:
    """A file with the shortest training examples."""
    shortest = sorted(load_split("train"), key=lambda e: len(e.context + e.question + e.answer))[:count]
    lines = (json.dumps(vars(example)) + "\n" for example in shortest)
    return write_whole(build_root() / "artifacts" / "few.jsonl", "".join(lines))


def reports_of(folders: Mapping[str, Path]) -> dict[str, dict]:
    """What each training wrote about itself."""
    return {method: json.loads((folder / "report.json").read_text()) for method, folder in folders.items()}


def encoded_examples(tokenizer) -> tuple[list[Example], list[Encoded]]:
    """The training split, and its token ids and labels."""
    examples = load_split("train")
    return examples, [encode(example, tokenizer) for example in examples]


def groups_for_a_step(
    examples: Sequence[Example], encoded: Sequence[Encoded], sizes: TuningSizes
) -> list[list[Encoded]]:
    """Questions of as many schemas as fill `sizes.rows` rows of `sizes.length` tokens; under `smoke` the shortest."""
    groups = by_schema(examples, encoded)
    if sizes is TUNING["smoke"]:
        groups = sorted(groups, key=lambda group: max(len(e.ids) for e in group))
    chosen, places = [], 0
    for group in groups:
        trees = trees_of([group], sizes.length)
        if places + sum(map(len, trees)) > sizes.rows * sizes.length:
            break
        chosen.append(group)
        places += sum(map(len, trees))
    return chosen or groups[:1]
