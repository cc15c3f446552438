"""Models by name: the course's own under data/models, a folder, a model of the Hub; and shapes with random weights.

One name for each of the course's models everywhere: `base` answers in prose (notebooks 00 to 02), `fine-tuned` in SQL
alone (from 03 on), `draft` guesses for the fine-tuned one (07), and so do the heads `medusa` (08). The fine-tuned one
is kept as an adapter, and merged into its base when it is loaded; any other folder with a LoRA adapter of PEFT's is
loaded alike.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from helpers import files
from helpers.errors import CourseError
from helpers.models.shapes import dtype_of

FOLDER = files.ROOT / "data" / "models"

MADE_BY = {
    "base": "python -m helpers.training.pretrain --model base",
    "fine-tuned": "python -m helpers.training.fine_tune_llm --epochs 1 --lr 1e-3 --more_examples 12000 "
    "--eval_samples 450 --save_steps 60 --export data/models/fine-tuned",
    "draft": "python -m helpers.training.pretrain --model draft --export build/draft && "
    "python -m helpers.training.distil_draft --start_from build/draft --export data/models/draft",
    "medusa": "python -m helpers.training.train_medusa_heads --more_examples 4000 --epochs 6 "
    "--export data/models/medusa",
}

WEIGHTS, ADAPTER, HEADS = "model.safetensors", "adapter_model.safetensors", "medusa_lm_head.safetensors"


def load(name: str | Path = "base", dtype: str | torch.dtype = "float32", device: str = "cpu"):
    """(model, tokenizer) of a course's model by its name, of a folder, or of a model on the Hub by its id.

    The model is in eval mode. Only safetensors are read, and no code that comes with a model is run.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    place, dtype = folder_of(name), dtype_of(dtype)
    if (Path(place) / HEADS).exists():
        raise CourseError(f"{name} are heads, not a model: load the model that they are for, and them beside it.")
    if (Path(place) / ADAPTER).exists():
        return _with_adapter(name, place, dtype, device)
    logging.disable_progress_bar()  # it writes to stderr, even in a notebook
    tokenizer = tokenizer_of(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, use_safetensors=True, trust_remote_code=False)
    except Exception as error:
        raise CourseError(_trouble(name, place, error)) from error
    model = _moved(model, name, device)
    # Plain greedy on both sides of a comparison: a model's own repetition penalty would change `generate` alone.
    model.generation_config = GenerationConfig(
        eos_token_id=model.generation_config.eos_token_id or tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model, tokenizer


def _with_adapter(name: str | Path, place: str, dtype: torch.dtype, device: str):
    """The adapter's base with the adapter merged into its weights, in float32, and rounded to `dtype` after that."""
    from peft import PeftModel

    model, tokenizer = load(_base_of(name, place))
    settings = model.generation_config
    try:
        model = PeftModel.from_pretrained(model, place).merge_and_unload()
    except Exception as error:
        raise CourseError(_trouble(name, place, error)) from error
    for p in model.parameters():  # not the buffers: RoPE's frequencies must not be rounded
        p.data = p.data.to(dtype)
    model.config.dtype, model.generation_config = dtype, settings
    return _moved(model, name, device), tokenizer


def _moved(model, name: str | Path, device: str):
    """The model on its device, in eval mode."""
    try:
        return model.to(device).eval()
    except torch.OutOfMemoryError:
        raise CourseError(f"{device} has no room for {name}: take a smaller model, or free its memory.") from None
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise CourseError(f'There is no device {device!r} for torch here ({reason}): take device="cpu".') from None


def _base_of(name: str | Path, place: str) -> str:
    """The model that an adapter was made for, as the adapter's own configuration names it."""
    try:
        base = json.loads((Path(place) / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise CourseError(_trouble(name, place, error)) from None
    if not base:
        raise CourseError(
            f"The adapter in {place} does not say for which model it is: fill in its adapter_config.json."
        )
    return base


def tokenizer_of(name: str | Path):
    """A model's tokenizer, without the model."""
    from transformers import AutoTokenizer

    place = parts_of(name)[-1]
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:
        raise CourseError(_trouble(name, place, error)) from error
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def config_at(name: str | Path):
    """The transformers configuration of a model by its name, a folder or a Hub id, without its weights."""
    from transformers import AutoConfig

    place = parts_of(name)[-1]
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=False)
    except Exception as error:
        raise CourseError(_trouble(name, place, error)) from error


def parts_of(name: str | Path) -> list[str]:
    """The folders or Hub ids that a model is made of: itself, and an adapter's base."""
    place = folder_of(name)
    return [place, *parts_of(_base_of(name, place))] if (Path(place) / ADAPTER).exists() else [place]


def hash_of(name: str | Path) -> str:
    """A short hash of everything that a model is made of, the same on every machine."""
    root = files.ROOT.as_posix() + "/"
    return files.model_hash(part.removeprefix(root) for part in parts_of(name))


def check_made_for(helper: str | Path, target: str | Path) -> None:
    """Refuse a draft (or heads) whose card says that it was made for another model than `target`."""
    made_for = card(helper).get("target_hash")
    if made_for and made_for != hash_of(target):
        raise CourseError(
            f"{helper} was made for another model than {target}: make one for it, or name its own target."
        )


def folder_of(name: str | Path) -> str:
    """Where a model is: data/models/<name> for the course's, otherwise the name as it stands (a folder, a Hub id)."""
    if name in MADE_BY or ("/" not in str(name) and (FOLDER / name).is_dir()):
        place = FOLDER / str(name)
        if not any((place / file).exists() for file in (WEIGHTS, ADAPTER, HEADS)):
            made = MADE_BY.get(str(name), "git checkout data/models")
            raise CourseError(f"The course's model {name} is not there: `{made}` makes it.")
        return str(place)
    if not Path(name).exists() and str(name).count("/") != 1:
        known = ", ".join(sorted({*MADE_BY, *(p.name for p in FOLDER.glob("*/"))}))
        raise CourseError(f"There is no model {name}: take one of {known}, a folder, or a Hub id as owner/name.")
    return str(name)


def _trouble(name: str | Path, place: str, error: Exception) -> str:
    """What to do about a model that would not load."""
    reason = (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}" if str(error) else type(error).__name__
    )
    if Path(place).is_relative_to(FOLDER):
        return f"The course's model {name} is damaged ({reason}): `git checkout data/models/{name}` brings it back."
    if Path(place).is_dir():
        return f"The model in {place} can't be read ({reason}): it needs config.json, a tokenizer and safetensors."
    return f"The model {name} can't be had from the Hub ({reason}): check its id, the network and HF_HUB_OFFLINE."


def shipped() -> dict[str, int]:
    """The course's models that are there, with the bytes of their folder."""
    found = sorted(p for p in FOLDER.glob("*/") if any((p / file).exists() for file in (WEIGHTS, ADAPTER, HEADS)))
    return {p.name: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in found}


def card(name: str) -> dict:
    """What the card.json of a model or folder says: how it was made, how long that took; empty without one."""
    try:
        return json.loads((Path(folder_of(name)) / "card.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
