"""What all training scripts share: options from a dataclass, the device and its precision, SageMaker's folders, a card.

A script is a dataclass of `Arguments` and a function that trains with them; `run` makes a command line of the two. It
runs alike from a notebook, the shell, torchrun (one process a device), and in a SageMaker training job, whose SM_*
variables give the folders.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TypeVar, get_type_hints

import torch

from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.measuring.machine import describe_machine
from helpers.training.processes import process_group

PLACES = ("output_dir", "checkpoint_dir", "export")  # where things go changes nothing of what they are


def choice(default: str, choices: Iterable[str]):
    """A field of `Arguments` that takes one of the choices."""
    return field(default=default, metadata={"choices": tuple(choices)})


def channel(name: str):
    """The field of a data set: SageMaker's folder for the channel "train" or "validation", else the course's own."""
    return field(default_factory=lambda: os.environ.get(f"SM_CHANNEL_{name.upper()}", "course"))


def model_dir(script: str):
    """The field of the folder for what a script makes: SageMaker's, else one of its own under build."""
    return field(default_factory=lambda: os.environ.get("SM_MODEL_DIR") or str(build_root() / script))


@dataclass
class Arguments:
    """What every script takes. CourseError for a value that is none of a field's choices."""

    model_id: str = "fine-tuned"  # one of the course's models, a folder, or a model of the Hub
    output_dir: str = model_dir("training")
    # SageMaker uploads this folder while the job runs, and brings it back to a job that was interrupted.
    checkpoint_dir: str = field(default_factory=lambda: "/opt/ml/checkpoints" if "SM_MODEL_DIR" in os.environ else "")
    export: str = ""  # where else the result goes, to be shipped: data/models/draft, say
    bf16: str = choice("auto", ("auto", "True", "False"))
    seed: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            value, choices = getattr(self, f.name), f.metadata.get("choices")
            if choices and value not in choices:
                raise CourseError(f"--{f.name} {value} is unknown; there are {', '.join(choices)}.")

    @property
    def checkpoints(self) -> Path:
        """The folder that a run which was killed resumes from."""
        return Path(self.checkpoint_dir or Path(self.output_dir) / "checkpoints")

    def without_places(self) -> dict[str, object]:
        """The options that the result depends on: all but the folders for what is written."""
        return {name: value for name, value in asdict(self).items() if name not in PLACES}

    def compute_dtype(self, device: str) -> torch.dtype:
        """The dtype of matrix products: bfloat16 if --bf16 says so or, with "auto", if the device computes in it."""
        native = device == "cuda" or describe_machine().bf16_is_native
        half = native if self.bf16 == "auto" else self.bf16 == "True"
        return torch.bfloat16 if half else torch.float32


A = TypeVar("A", bound=Arguments)


def parse(kind: type[A], description: str = "", options: Sequence[str] | None = None) -> A:
    """Arguments from a command line's options (default: this process's): --name value, spelled as the fields are."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    types = get_type_hints(kind)
    for f in fields(kind):
        default = f.default if f.default is not MISSING else f.default_factory()
        parse_value = _truth if types[f.name] is bool else types[f.name]
        parser.add_argument(f"--{f.name}", type=parse_value, default=default)
    return kind(**vars(parser.parse_args(options)))


def _truth(text: str) -> bool:
    """A truth value of the command line: True or False, as SageMaker passes them."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text} is neither True nor False")
    return text.lower() == "true"


def run(train: Callable[[A], object], kind: type[A], description: str) -> None:
    """Train with the options of the command line; a CourseError ends the process with its sentence alone."""
    try:
        arguments = parse(kind, description)
        with process_group():
            train(arguments)
    except CourseError as error:
        sys.exit(str(error))


def device() -> str:
    """ "cuda", which is a device for each process, or "cpu"."""
    if not torch.cuda.is_available():
        return "cpu"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    return "cuda"


def autocast(device: str, dtype: torch.dtype) -> torch.autocast:
    """Matrix products in `dtype`; nothing changes where that is float32."""
    return torch.autocast(device, dtype, enabled=dtype != torch.float32)


def write_card(place: str | Path, arguments: Arguments, entries: dict[str, object]) -> None:
    """card.json in a folder with a model: its entries, the machine and the arguments that made it."""
    origin = {"machine": asdict(describe_machine()), "torch": torch.__version__}
    card = entries | origin | {"arguments": arguments.without_places()}
    write_whole(Path(place) / "card.json", json.dumps(card, indent=1) + "\n")
