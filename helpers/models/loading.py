"""Models with their weights, whole or not at all: from a folder or the Hub, or an adapter merged into its base."""

from __future__ import annotations

from pathlib import Path

import torch

from helpers.errors import CourseError
from helpers.models import first_layers
from helpers.models.fit import check_vocabulary, check_weights
from helpers.models.merging import ADAPTER, merged
from helpers.models.places import DRAFTER, HEADS, base_of, folder_of, parts_of, remedy_for, trouble
from helpers.models.shapes import dtype_of


def load(name: str | Path = "base", dtype: str | torch.dtype = "float32", device: str = "cpu"):
    """(model, tokenizer) of a course's model by its name, of a folder, or of a model on the Hub by its id.

    The model is in eval mode. Only safetensors are read, and no code that comes with a model is run.

    Raises:
        CourseError: the model is missing or damaged; its weights don't fit its config.json, its tokenizer its
            vocabulary, or an adapter its base; the device is missing or full.
    """
    from transformers import GenerationConfig

    check_is_model(name)
    place, dtype = folder_of(name), dtype_of(dtype)
    if (Path(place) / ADAPTER).exists():
        return _with_adapter(name, place, dtype, device)
    tokenizer = tokenizer_of(name)
    model = from_checkpoint(name, dtype=dtype)
    check_vocabulary(str(name), model, tokenizer)
    model, eos = _moved(model, name, device), model.generation_config.eos_token_id
    # Plain greedy on both sides of a comparison: a model's own repetition penalty would change `generate` alone.
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id if eos is None else eos, pad_token_id=tokenizer.pad_token_id
    )
    return model, tokenizer


def from_checkpoint(name: str | Path, **options):
    """The model of a folder or the Hub as transformers loads it with these options, every tensor in its place.

    Raises:
        CourseError: it can't be read; tensors are missing, left over or of another size than config.json says.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    place = folder_of(name)
    logging.disable_progress_bar()  # it writes to stderr, even in a notebook
    try:
        # Tensors of another size are let pass here, so that they are reported by their names.
        model, info = AutoModelForCausalLM.from_pretrained(
            place,
            **options,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise CourseError(trouble(name, place, error)) from error
    remedy = remedy_for(place) or "export the model again, its weights and config.json together"
    resized = [key for key, *_ in info["mismatched_keys"]]
    what = f"The weights of {name} don't fit its config.json"
    check_weights(what, info["missing_keys"], info["unexpected_keys"], resized, remedy)
    return model


def _with_adapter(name: str | Path, place: str, dtype: torch.dtype, device: str):
    """The adapter's base with the adapter merged into its weights, in float32, and rounded to `dtype` after that."""
    base, num_layers = base_of(name, place), first_layers.num_layers_of(name, place)
    model, tokenizer = load(base)
    if num_layers is not None:  # a draft
        first_layers.keep(model, num_layers)
    settings, what = model.generation_config, f"The adapter {name} doesn't fit its base {base}"
    remedy = remedy_for(place) or "name the model that it was trained on in its adapter_config.json"
    try:
        model = merged(model, Path(place), what, remedy)
    except CourseError:
        raise
    except Exception as error:
        raise CourseError(trouble(name, place, error)) from error
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


def check_is_model(name: str | Path) -> None:
    """Refuse heads and a recurrent drafter, which go by a name as models do but work only beside one."""
    if any((Path(folder_of(name)) / file).exists() for file in (HEADS, DRAFTER)):
        raise CourseError(f"{name} works beside a model and is none: load the model that it is for, and it beside it.")


def tokenizer_of(name: str | Path):
    """A model's tokenizer, without the model; one without a padding token pads with its end-of-text token.

    Raises:
        CourseError: it can't be read, or has no end-of-text token.
    """
    from transformers import AutoTokenizer

    check_is_model(name)
    place = parts_of(name)[-1]
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:
        raise CourseError(trouble(name, place, error)) from error
    if tokenizer.eos_token is None:
        raise CourseError(f"The tokenizer of {name} has no end-of-text token: set eos_token in tokenizer_config.json.")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def config_at(name: str | Path):
    """The transformers configuration of a model by its name, a folder or a Hub id, without its weights."""
    from transformers import AutoConfig

    check_is_model(name)
    parts = parts_of(name)
    try:
        config = AutoConfig.from_pretrained(parts[-1], trust_remote_code=False)
    except Exception as error:
        raise CourseError(trouble(name, parts[-1], error)) from error
    num_layers = first_layers.num_layers_of(name, parts[0])
    if num_layers is not None:  # a draft
        first_layers.shorten(config, num_layers)
    return config
