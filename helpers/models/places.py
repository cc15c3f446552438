"""Where models are, the course's own (under data/models), a folder or one of the Hub, and what each is made of.

One name for each of the course's models everywhere: `base` is SmolLM2-135M-Instruct, which a package brings
(package.py) and which answers in prose (notebooks 00 to 02); `fine-tuned`, an adapter on it, answers in SQL alone (from
03 on); `draft` guesses for the fine-tuned one (07), and so do the heads `medusa` and the recurrent `drafter` (08). The
heads `medusa-prose` guess what the base says.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from helpers import files
from helpers.errors import CourseError
from helpers.models import package
from helpers.models.merging import ADAPTER

FOLDER = files.ROOT / "data" / "models"

MADE_BY = {
    "fine-tuned": "python -m helpers.training.fine_tune_llm --epochs 1 --max_steps 619 --lr 2e-3 "
    "--lr_scheduler_type cosine --warmup_steps 50 --per_device_train_batch_size 32 --more_examples 300000 --seed 3 "
    "--eval_samples 0 --export data/models/fine-tuned",
    "draft": "python -m helpers.training.distil_draft --more_examples 1900 --guessed_tokens 4096 --lora_r 32 "
    "--lora_alpha 64 --export data/models/draft",
    "medusa": "python -m helpers.training.train_medusa_heads --more_examples 12900 --guessed_tokens 4096 --epochs 4 "
    "--batch_positions 512 --eval_samples 200 --export data/models/medusa",
    "medusa-prose": "python -m helpers.training.train_medusa_heads --model_id base --max_new_tokens 256 "
    "--max_examples 700 --medusa_num_heads 4 --guessed_tokens 4096 --epochs 3 --eval_samples 50 "
    "--export data/models/medusa-prose",
    "drafter": "python -m helpers.training.train_recurrent_drafter --more_examples 12900 --guessed_tokens 4096 "
    "--epochs 5 --eval_samples 200 --export data/models/drafter",
}

WEIGHTS, HEADS = "model.safetensors", "medusa_lm_head.safetensors"
DRAFTER = "recurrent_drafter.safetensors"
KINDS = (WEIGHTS, ADAPTER, HEADS, DRAFTER)


def parts_of(name: str | Path) -> list[str]:
    """The folders or Hub ids that a model is made of: itself, and an adapter's base."""
    place = folder_of(name)
    return [place, *parts_of(base_of(name, place))] if (Path(place) / ADAPTER).exists() else [place]


def hash_of(name: str | Path) -> str:
    """A short hash of everything that a model is made of, the same on every machine."""
    root = files.ROOT.as_posix() + "/"
    return files.model_hash((part.removeprefix(root) for part in parts_of(name)), files.ROOT)


def check_made_for(helper: str | Path, target: str | Path) -> None:
    """Refuse a draft (or heads) whose card says that it was made for another model than `target`."""
    made_for = card(helper).get("target_hash")
    if made_for and made_for != hash_of(target):
        raise CourseError(
            f"{helper} was made for another model than {target}: make one for it, or name its own target."
        )


def folder_of(name: str | Path) -> str:
    """Where a model is: data/models/<name> for the course's (the base: where its package was converted to), the whole
    path of a folder, or a Hub id as it stands.

    What looks like a path is one: a Path, or text that starts with "/", "." or "~", ends with "/" or has more than one
    of them. A relative path counts from the current folder (a notebook's own), and then from the repository. Without
    such a sign `owner/name` is a folder where there is one, else a Hub id.

    Raises:
        CourseError: there is no such folder, or no such model of the course.
    """
    text = str(name)
    if text == "base":
        return str(package.package_folder())
    if text in MADE_BY or (text.strip("./") and "/" not in text and (FOLDER / text).is_dir()):
        place = FOLDER / text
        if not any((place / file).exists() for file in KINDS):
            command = MADE_BY.get(text, "git checkout data/models")
            raise CourseError(f"data/models/{text} is not there: `{command}` makes it.")
        return str(place)
    if folder := _folder(text):
        return str(folder)
    known = ", ".join(sorted({"base", *MADE_BY, *(p.name for p in FOLDER.glob("*/"))}))
    if isinstance(name, Path) or text.startswith(("/", ".", "~")) or text.endswith("/") or text.count("/") > 1:
        raise CourseError(f"There is no folder {text}: give one that holds a model, or one of {known}.")
    if text.count("/") != 1:
        raise CourseError(f"There is no model {text}: take one of {known}, a folder, or a Hub id as owner/name.")
    return text


def _folder(text: str) -> Path | None:
    """The folder at a path, from the current one or else from the repository; the first with a model, if there is one.

    From notebooks/, "." is not the repository's own folder, but "data" is.
    """
    path = Path(os.path.expanduser(text))
    folders = [(start / path).resolve() for start in (Path.cwd(), files.ROOT) if text and (start / path).is_dir()]
    models = [folder for folder in folders if (folder / "config.json").exists() or (folder / ADAPTER).exists()]
    return next(iter(models or folders), None)


def shipped() -> dict[str, int]:
    """The course's models that are there, with the bytes of their folder."""
    places = sorted(p for p in FOLDER.glob("*/") if any((p / file).exists() for file in KINDS))
    return {p.name: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in places}


def card(name: str) -> dict:
    """What the card.json of a model or folder says: how it was made, how long that took; empty without one."""
    try:
        return json.loads((Path(folder_of(name)) / "card.json").read_text(encoding="utf-8"))
    except OSError:
        return {}


def base_of(name: str | Path, place: str) -> str:
    """The model that an adapter was made for, as the adapter's own configuration names it."""
    try:
        base = json.loads((Path(place) / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise CourseError(trouble(name, place, error)) from None
    if not base:
        raise CourseError(
            f"The adapter in {place} does not say for which model it is: fill in its adapter_config.json."
        )
    return base


def remedy_for(place: str) -> str:
    """What brings a model of the course back; empty for any other."""
    if Path(place) == package.FOLDER:
        return "delete build/models/base, and it is made anew from its package"
    one_of_ours = Path(place).parent == FOLDER
    return f"`git checkout data/models/{Path(place).name}` brings it back" if one_of_ours else ""


def trouble(name: str | Path, place: str, error: Exception) -> str:
    """What to do about a model that would not load."""
    reason = (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}" if str(error) else type(error).__name__
    )
    if remedy := remedy_for(place):
        return f"The course's model {name} is damaged ({reason}): {remedy}."
    if Path(place).is_dir():
        return f"The model in {place} can't be read ({reason}): it needs config.json, a tokenizer and safetensors."
    return f"The model {name} can't be had from the Hub ({reason}): check its id, the network and HF_HUB_OFFLINE."
