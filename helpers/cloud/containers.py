"""A container's environment and serving.properties, as settings of the course's server (notebook 12).

LMI takes OPTION_X in the environment, or option.x in serving.properties beside the model; the file wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from helpers.cloud.store import LocalStore
from helpers.errors import CourseError
from helpers.serving.run import Settings

INSIDE = "/opt/ml/model"  # where a container finds the model's archive
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "auto": None}  # by LMI's names
TRUTHS = {"true": True, "false": False}
KNOWN = {  # what changes anything here
    "model_id",
    "speculative_config",
    "max_model_len",
    "max_num_seqs",
    "dtype",
    "enable_prefix_caching",
}


def options_of(environment: Mapping[str, str], folder: Path | None) -> dict[str, str]:
    """LMI's options by their names: of the environment, and over these of the file in the unpacked archive."""
    found = {"model_id": environment["HF_MODEL_ID"]} if "HF_MODEL_ID" in environment else {}
    found |= {name[7:].lower(): value for name, value in environment.items() if name.startswith("OPTION_")}
    file = folder / "serving.properties" if folder else None
    if file and file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            key, _, value = (part.strip() for part in line.partition("="))
            if key.startswith("option."):
                found[key.removeprefix("option.")] = value
    return found


def unused(options: Mapping[str, str]) -> list[str]:
    """Options that are recorded and change nothing here."""
    return sorted(set(options) - KNOWN)


def settings_of(options: Mapping[str, str], folder: Path | None, store: LocalStore) -> Settings:
    """What the course's server is started with.

    Raises:
        CourseError: no model is named, a value makes no sense, or speculation is by something that this server
            doesn't have.
    """
    place = options.get("model_id") or (INSIDE if folder else "")
    if not place:
        raise CourseError("The container names no model: set HF_MODEL_ID, or give it a ModelDataUrl.")
    dtype = options.get("dtype", "auto")
    if dtype not in DTYPES:
        raise CourseError(f"There is no dtype {dtype!r} in LMI; there are {', '.join(DTYPES)}.")
    found: dict[str, object] = {}
    for option, field in (("max_model_len", "longest"), ("max_num_seqs", "seats")):
        if option in options:
            if not options[option].isdigit() or not int(options[option]):
                raise CourseError(f"{option} is a number above 0, not {options[option]!r}.")
            found[field] = int(options[option])
    if (shares := options.get("enable_prefix_caching", "true")) not in TRUTHS:
        raise CourseError(f"enable_prefix_caching is true or false, not {shares!r}.")
    found["share_prefixes"] = TRUTHS[shares]
    if "speculative_config" in options:
        heads, found["guesses"] = _speculation(options["speculative_config"])
        found["medusa"] = _here(heads, folder, store)
    return Settings(
        model=_here(place, folder, store),
        device="cuda" if torch.cuda.is_available() else "cpu",
        dtype=DTYPES[dtype],
        **found,
    )


def _speculation(config: str) -> tuple[str, int]:
    """Where the heads are, and how many tokens they guess."""
    try:
        asked = json.loads(config)
        method, heads, guesses = asked["method"], str(asked["model"]), int(asked["num_speculative_tokens"])
    except (ValueError, KeyError, TypeError):
        example = '{"method": "medusa", "model": ..., "num_speculative_tokens": 4}'
        raise CourseError(f"speculative_config is JSON: {example}.") from None
    if method != "medusa":
        raise CourseError(f"This server has no speculation by {method!r}: take medusa.")
    return heads, guesses


def _here(name: str, folder: Path | None, store: LocalStore) -> str:
    """A path inside the container, or an address in S3, as a path here."""
    if name.startswith("s3://"):
        return str(store.path(name))
    if folder and (name == INSIDE or name.startswith(f"{INSIDE}/")):
        return str(folder / name.removeprefix(INSIDE).strip("/"))
    return name
